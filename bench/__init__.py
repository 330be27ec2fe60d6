"""Benchmarks of backbones. A module with a `main` is a command: `python -m bench.flops`."""
