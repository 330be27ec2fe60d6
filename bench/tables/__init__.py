"""Table descriptions, rendered as text, markdown, CSV, JSON or LaTeX."""
