"""Predicted speed and memory of passes on devices that are not available."""
