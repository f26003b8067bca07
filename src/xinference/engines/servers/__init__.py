"""Programs that run inside an engine's environment; they import nothing of ours."""
