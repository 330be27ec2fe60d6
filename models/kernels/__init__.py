"""Fused operations, one a file: the function to call, its reference, its back ends."""
