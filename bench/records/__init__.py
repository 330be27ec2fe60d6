"""Cases, records of their results, and the tables of records; one kind a module."""
