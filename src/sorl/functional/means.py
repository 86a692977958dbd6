"""Means over the valid rows of a batch."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_over(values: Float[Array, "batch *rest"], valid: Float[Array, " batch"] | None) -> Float[Array, ""]:
    """The mean of `values` over the rows whose `valid` is 1 (None: all rows); 0 if there is no such row.

    It equals the mean over a batch without the rows whose `valid` is 0.
    """
    if valid is None:
        return jnp.mean(values)
    of_rows = jnp.mean(values.reshape(len(valid), -1), axis=-1)
    return jnp.sum(valid * of_rows) / jnp.maximum(jnp.sum(valid), 1.0)
