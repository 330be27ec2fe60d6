"""Files of records: the format, its migration, and the append-only store."""
