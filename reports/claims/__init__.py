"""Verdicts on the papers' claims."""
