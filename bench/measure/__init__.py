"""Timing, interleaving, memory and profiling of a prepared model."""
