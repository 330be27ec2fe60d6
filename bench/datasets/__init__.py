"""Data sets of images and latents for training."""
