"""Where an engine's packages live: one immutable folder for each lock file."""
