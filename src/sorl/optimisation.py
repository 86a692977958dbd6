"""One step of an optimiser, for every agent: clip by global norm, Adam, moving average."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


Scalar = float | Float[Array, ""]


class AdamState(eqx.Module):
    """What Adam remembers: optax does the arithmetic, but a state can be made where optax is not installed."""

    count: Int[Array, "*seeds"]
    """Number of steps made."""
    mean: PyTree
    """Moving average of the gradient."""
    variance: PyTree
    """Moving average of its square."""


def init(networks: Any) -> AdamState:
    """Adam's state before the first step, for any pytree of arrays."""
    zeros = jax.tree.map(jnp.zeros_like, networks)
    return AdamState(jnp.int32(0), zeros, jax.tree.map(jnp.copy, zeros))


def step(
    gradient: Any, state: AdamState, networks: Any, *, learning_rate: Scalar, max_grad_norm: Scalar = jnp.inf
) -> tuple[PyTree, AdamState, Float[Array, ""]]:
    """Adam after a clip of the gradient to a global norm (Kingma & Ba 2015; beta 0.9 and 0.999, epsilon 1e-8).

    **Returns:** the networks after the step, the optimiser's state, and the gradient's norm before the clip.
    """
    import optax

    length = norm(gradient)
    # One factor for all, not optax's clip: that divides every entry, and XLA then keeps the quotients as arrays.
    factor = jnp.where(length < max_grad_norm, 1.0, max_grad_norm / length)
    clipped = jax.tree.map(lambda leaf: factor.astype(leaf.dtype) * leaf, gradient)
    before = optax.ScaleByAdamState(state.count, state.mean, state.variance)
    direction, after = optax.scale_by_adam().update(clipped, before)
    networks = optax.apply_updates(networks, jax.tree.map(lambda update: -learning_rate * update, direction))
    assert isinstance(after, optax.ScaleByAdamState)
    return networks, AdamState(jnp.asarray(after.count), after.mu, after.nu), length


def norm(tree: Any) -> Float[Array, ""]:
    """The Euclidean norm of all arrays of a pytree together."""
    import optax

    return optax.tree.norm(tree)


def moving_average(online: Any, average: Any, rate: Scalar) -> PyTree:
    """`rate * online + (1 - rate) * average`, array by array."""
    import optax

    return optax.incremental_update(online, average, rate)
