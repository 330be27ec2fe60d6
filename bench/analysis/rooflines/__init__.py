"""Floors of passes, parts and kernels from the peaks of a device, next to measured times."""
