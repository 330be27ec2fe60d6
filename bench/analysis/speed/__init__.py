"""Ratios of speed, and ranks of models by speed under different settings."""
