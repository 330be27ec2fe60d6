"""Peak memory: sections of a pass or a step, and the live bytes in each."""
