"""A run directory: its files, its metrics, and the versions and data behind its numbers."""
