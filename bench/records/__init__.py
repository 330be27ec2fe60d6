"""What was asked and what was seen: cases, records, their tables and the store."""
