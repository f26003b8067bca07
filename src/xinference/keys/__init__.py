"""API keys: creation and revocation, and the table for the look-up of every request's key."""
