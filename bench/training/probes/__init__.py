"""Trained networks applied to noised images: spectra of predictions, use of channels."""
