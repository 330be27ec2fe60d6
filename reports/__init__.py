"""Records in, markdown and plots out; the same bytes for the same records."""
