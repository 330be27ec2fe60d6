"""report.html: one page with all records, their plots and samples, and the claims."""
