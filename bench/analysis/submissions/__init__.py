"""Findings in files of records that somebody submits."""
