"""Layers that two or more backbones share, one kind per file."""
