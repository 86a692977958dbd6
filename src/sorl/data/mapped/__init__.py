"""Data directories: one memory-mapped array a field, for sets that are larger than memory. Imports no jax."""
