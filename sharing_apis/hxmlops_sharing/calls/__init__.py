"""What both clients have in common: the sharing APIs' calls as coroutines over a wire, which each client brings."""
