"""Whether two pytrees have the same bits."""

import jax
import jax.numpy as jnp
import numpy as np


def arrays(tree) -> list[np.ndarray]:
    """The leaves, of random keys their data."""
    leaves = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in leaves]


def equal(one, other) -> bool:
    """Whether all bits of two pytrees are equal."""
    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))
