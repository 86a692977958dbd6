"""The optimiser of every agent: clipping by global norm, Adam, and moving averages."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from sorl.system.accelerators import bound_by_kernels, on_accelerator


Scalar = float | Float[Array, ""]

_MEAN_DECAY, _VARIANCE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
_SMALL_ARRAY = 2**14
"""Largest array whose squares a norm takes whole; larger ones are first summed along their last axis."""
_SMALL_NETWORK = 2**22
"""A network of at most this many parameters has its gradient joined to one array."""


class AdamState(eqx.Module):
    """The state of Adam; creating it does not need optax."""

    count: Int[Array, "*seeds"]
    """Number of steps taken."""
    mean: PyTree
    """Moving average of the gradient."""
    variance: PyTree
    """Moving average of the squared gradient."""


def init(networks: Any) -> AdamState:
    """Adam's state before the first step, for any pytree of arrays."""
    zeros = jax.tree.map(jnp.zeros_like, networks)
    return AdamState(jnp.int32(0), zeros, jax.tree.map(jnp.copy, zeros))


def step(
    gradient: Any, state: AdamState, networks: Any, *, learning_rate: Scalar, max_grad_norm: Scalar = jnp.inf
) -> tuple[PyTree, AdamState, Float[Array, ""]]:
    """One step of Adam on a gradient clipped by its global norm (Kingma & Ba 2015; beta 0.9, 0.999, epsilon 1e-8).

    **Returns:** the networks after the step, the optimiser's state, and the gradient's norm before clipping.
    """
    import optax

    gradient, length = _with_norm(gradient)
    # Multiply by one factor; optax's clip divides every entry, and XLA then stores the quotients as arrays.
    factor = jnp.where(length < max_grad_norm, 1.0, max_grad_norm / length)
    clipped = jax.tree.map(lambda leaf: factor.astype(leaf.dtype) * leaf, gradient)
    mean = optax.tree.update_moment(clipped, state.mean, _MEAN_DECAY, 1)
    variance = optax.tree.update_moment_per_elem_norm(clipped, state.variance, _VARIANCE_DECAY, 2)
    count = jnp.asarray(optax.safe_increment(state.count))
    unbiased_mean = _without_bias(mean, _MEAN_DECAY, count, length.dtype)
    unbiased_variance = _without_bias(variance, _VARIANCE_DECAY, count, length.dtype)
    direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + _EPSILON), unbiased_mean, unbiased_variance)
    networks = optax.apply_updates(networks, jax.tree.map(lambda update: -learning_rate * update, direction))
    return networks, AdamState(count, mean, variance), length


def _without_bias(average: PyTree, decay: float, count: Int[Array, "*seeds"], dtype: Any) -> PyTree:
    """Corrects the bias of a moving average that started at 0: divides it by 1 - decay^count."""
    # Not optax's function: it computes the power in JAX's default float type, which has 64 bits under JAX_ENABLE_X64.
    share = 1 - jnp.asarray(decay, dtype) ** count.astype(dtype)
    return jax.tree.map(lambda leaf: leaf / share, average)


def norm(tree: Any) -> Float[Array, ""]:
    """The global norm: the Euclidean norm of all arrays of a pytree together."""
    return _with_norm(tree)[1]


def _with_norm(tree: Any) -> tuple[PyTree, Float[Array, ""]]:
    """The pytree, and its `norm`."""
    import optax

    if not on_accelerator():
        return tree, optax.tree.norm(tree)
    # On an accelerator, take one sum over all arrays, behind a barrier: XLA would make several kernels for each array.
    # Joining the arrays to one also lets XLA update all arrays of one shape in one kernel. But the joined array has to
    # be written and read, so only small networks are joined.
    leaves = jax.tree.leaves(tree)
    if bound_by_kernels() and sum(leaf.size for leaf in leaves) <= _SMALL_NETWORK:
        together, as_tree = ravel_pytree(tree)
        together = jax.lax.optimization_barrier(together)
        return as_tree(together), jnp.sqrt(jnp.sum(together * together))
    rows = [jnp.sum(leaf * leaf, axis=-1) if leaf.size > _SMALL_ARRAY else leaf * leaf for leaf in leaves]
    squares = jax.lax.optimization_barrier(jnp.concatenate([row.reshape(-1) for row in rows]))
    return tree, jnp.sqrt(jnp.sum(squares))


def moving_average(online: Any, average: Any, rate: Scalar) -> PyTree:
    """`rate * online + (1 - rate) * average`, array by array."""
    import optax

    return optax.incremental_update(online, average, rate)
