"""Run directories: their files, metrics, and records of the versions and data behind their numbers."""
