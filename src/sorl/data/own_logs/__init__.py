"""Loads a user's own logs, without a simulator."""
