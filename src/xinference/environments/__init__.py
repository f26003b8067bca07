"""The engines' environments: one immutable folder for each lock file."""
