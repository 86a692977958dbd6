"""Training states of every kind of array, and what is compared of them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree


class Network(eqx.Module):
    weight: Array
    name: str = eqx.field(static=True, default="network")


class State(eqx.Module):
    networks: tuple[Network, Network]
    optimiser: PyTree
    key: Array
    extras: dict[str, Array]


def a_state(seed: int = 0) -> State:
    keys = jax.random.split(jax.random.key(seed), 4)
    networks = (Network(jax.random.normal(keys[0], (3, 4))), Network(jax.random.normal(keys[1], (5,))))
    extras = {
        "bfloat16": jax.random.normal(keys[2], (7,)).astype(jnp.bfloat16),
        "flags": jnp.array([True, False, True]),
        "step": jnp.int32(-7),
        "nothing": jnp.zeros((0, 3)),
        "special": jnp.array([jnp.nan, -jnp.inf, -0.0, 1e-45]),
        "rbg": jax.random.key(seed, impl="rbg"),
    }
    weights: Any = networks
    optimiser = optax.adam(1e-3).init(weights)
    return State(networks, optimiser, jax.random.split(keys[3], 2), extras)


def bits(tree: PyTree) -> list[tuple[str, tuple[int, ...], bytes]]:
    """What has to be equal: types, shapes and every bit (NaN and -0.0 too)."""
    leaves = jax.tree.leaves(tree)
    data = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return [(str(x.dtype), x.shape, np.array(y).tobytes()) for x, y in zip(leaves, data, strict=True)]
