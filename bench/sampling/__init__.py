"""Samples from trained networks, and their distances from images."""
