"""Peak memory over the batch, and measured against predicted peaks."""
