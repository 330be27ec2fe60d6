"""Sections of the report, one topic each."""
