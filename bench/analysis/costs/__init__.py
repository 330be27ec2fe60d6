"""Counts under several counters, and the cost of a whole training."""
