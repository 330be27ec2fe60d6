"""Backbones chosen by limits on speed, memory and published FID."""
