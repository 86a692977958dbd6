"""Minari's data sets."""
