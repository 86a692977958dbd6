"""A user's own logs, for which no simulator is needed."""
