"""Tables that are described once and rendered as text, markdown, CSV, JSON or LaTeX."""
