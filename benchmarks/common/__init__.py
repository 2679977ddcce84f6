"""What the benchmarks of the sharing APIs have in common."""
