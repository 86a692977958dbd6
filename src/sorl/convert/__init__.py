"""Converts recorded data of other formats into those that training reads."""
