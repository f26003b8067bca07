"""The API's keys: making and revoking them, and the table that every request is looked up in."""
