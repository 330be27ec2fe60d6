"""Analyses of records: scaling, learning curves, memory fits, rooflines, projection. No torch."""
