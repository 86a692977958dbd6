"""OGBench's environments: their names, one process that plays them, and worker processes that play side by side.

Nothing here imports jax: the worker processes import this room.
"""
