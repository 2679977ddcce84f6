"""Digests, keys, pins, signed statements, model artifacts and the gates that check them."""
