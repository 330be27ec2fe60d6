"""Fused operations: one a file, each with a reference in plain PyTorch."""
