"""Options, model names, progress and tables shared by commands."""
