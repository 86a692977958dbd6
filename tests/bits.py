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
    pairs = zip(arrays(one), arrays(other), strict=True)
    # `array_equal` alone would take 0.0 for -0.0, and one dtype for another; bytes alone, a NaN for a sound result.
    return all(np.array_equal(a, b) and a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)
