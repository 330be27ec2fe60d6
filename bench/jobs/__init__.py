"""Runs cases in workers and stores their records."""
