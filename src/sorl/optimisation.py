"""One step of an optimiser, for every agent: clip by global norm, Adam, moving average."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


Scalar = float | Float[Array, ""]


def init(networks: Any) -> PyTree:
    """Adam's state before the first step, for any pytree of arrays."""
    return _adam(0.0, 1.0).init(networks)


def step(
    gradient: Any, state: Any, networks: Any, *, learning_rate: Scalar, max_grad_norm: Scalar = jnp.inf
) -> tuple[PyTree, PyTree, Float[Array, ""]]:
    """Adam after a clip of the gradient to a global norm (Kingma & Ba 2015; beta 0.9 and 0.999, epsilon 1e-8).

    **Returns:** the networks after the step, the optimiser's state, and the gradient's norm before the clip.
    """
    import optax

    updates, state = _adam(learning_rate, max_grad_norm).update(gradient, state, networks)
    return optax.apply_updates(networks, updates), state, norm(gradient)


def norm(tree: Any) -> Float[Array, ""]:
    """The Euclidean norm of all arrays of a pytree together."""
    import optax

    return optax.tree.norm(tree)


def moving_average(online: Any, average: Any, rate: Scalar) -> PyTree:
    """`rate * online + (1 - rate) * average`, array by array."""
    import optax

    return optax.incremental_update(online, average, rate)


def _adam(learning_rate: Scalar, max_grad_norm: Scalar) -> Any:
    # Here, so that a policy can be loaded and act where optax is not installed.
    import optax

    return optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate))
