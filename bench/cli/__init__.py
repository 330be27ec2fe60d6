"""Options, names, progress and tables that commands share."""
