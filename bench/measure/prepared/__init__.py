"""Models prepared for timing: engines, checks before and after, one training step."""
