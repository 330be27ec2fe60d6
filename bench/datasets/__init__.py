"""Images and latents that networks are trained on."""
