"""Measuring: one question a module; a module with a main is a command, `python -m bench.flops`."""
