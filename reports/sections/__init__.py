"""Sections of the report, a file each: `section` writes it, PLACE is its page and its place on that page."""
