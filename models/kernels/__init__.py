"""Fused operations: one a file, each with its reference and what it is fast on."""
