"""Execution of cases in worker processes, and storage of their records."""
