"""Sections of the report, one topic in each module."""
