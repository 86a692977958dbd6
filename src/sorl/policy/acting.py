"""One decision for each row of a batch, as a function and as a compiled program that is cheap to call."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents import Budget
from sorl.agents.actors import AbstractActor
from sorl.data.normalisation import Normalisation


BLOCK_ROWS = 512
"""Rows of a product (decisions times candidates) in a block of a large batch on a CPU, whose activations stay in the
cache: 1,024 decisions among 8 candidates then take 0.7 of the time on two cores, with the same bits."""

Program = Callable[[tuple[Array, ...], np.ndarray, Array], Array]
"""Computes actions from `program_arrays`, a batch of observations and one random key."""


@jax.jit
def decide(
    actor: AbstractActor,
    networks: PyTree,
    normalisation: Normalisation,
    observations: Float[Array, "batch observation"],
    keys: Key[Array, " batch"],
    budget: Budget,
) -> Float[Array, "batch *chunk action"]:
    """Makes one decision for each row, in the environment's units; row `i` uses only the key `keys[i]`.

    **Returns:** an action for each row, or, if the actor gives several actions per decision, a chunk of them.
    """

    def whole(observations, keys):
        action_size = actor.actions_at_once * normalisation.action_low.shape[0]
        with jax.enable_x64(False):  # float64 draws from the same key would differ
            draws = jax.vmap(lambda key: actor.draw_action(action_size, budget, key=key))(keys)
        return act(actor, networks, normalisation, observations, draws, budget)

    if len(observations) * budget.candidates <= 2 * BLOCK_ROWS:
        return whole(observations, keys)
    in_blocks = functools.partial(_in_blocks, whole, max(1, BLOCK_ROWS // budget.candidates))
    return jax.lax.platform_dependent(observations, keys, cpu=in_blocks, default=whole)


def _in_blocks(
    function: Callable[[Array, Array], Array],
    rows: int,
    observations: Float[Array, "batch observation"],
    keys: Key[Array, " batch"],
) -> Float[Array, "batch *chunk action"]:
    """Applies a function of a batch to blocks of `rows` rows, one after the other, and to the rest."""
    blocks = len(observations) // rows
    full = [part[: blocks * rows].reshape(blocks, rows, *part.shape[1:]) for part in (observations, keys)]
    found = jax.lax.map(lambda block: function(*block), tuple(full))
    found = found.reshape(blocks * rows, *found.shape[2:])
    if blocks * rows == len(observations):
        return found
    return jnp.concatenate([found, function(observations[blocks * rows :], keys[blocks * rows :])])


def act(
    actor: AbstractActor,
    networks: PyTree,
    normalisation: Normalisation,
    observations: Float[Array, "batch observation"],
    draws: PyTree,
    budget: Budget,
) -> Float[Array, "batch *chunk action"]:
    """As `decide`, but with given draws: the stacked results of `actor.draw_action`, `draws[i]` for row `i`.

    Everything is computed in single precision, even if `JAX_ENABLE_X64` makes double precision JAX's default.
    """
    actor, networks, normalisation, observations, draws = _in_single_precision(
        (actor, networks, normalisation, observations, draws)
    )

    def one(observation, own):
        return actor.act(networks, normalisation.observation(observation), own, budget)

    with jax.enable_x64(False):
        actions = jax.vmap(one)(observations, draws)
        if actor.actions_at_once > 1:
            actions = actions.reshape(actions.shape[0], actor.actions_at_once, normalisation.action_low.shape[0])
        return normalisation.environment_action(actions)


def _in_single_precision(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.float32(leaf) if jnp.result_type(leaf) == jnp.float64 else leaf, tree)


def program_arrays(networks: PyTree, normalisation: Normalisation) -> tuple[Array, ...]:
    """All arrays in a flat tuple for `program`, with transposed matrices; a call then has no tree to flatten.

    For a single row, XLA's CPU backend needs each layer's transposed matrix. It would transpose the stored one at every
    call, which takes longer than the product.
    """
    return tuple(_transposed_on_host(leaf) for leaf in jax.tree.leaves((networks, normalisation)))


@functools.cache
def program(actor: AbstractActor, structure: Any, budget: Budget) -> Program:
    """The compiled program that acts at `budget`; policies with the same actor and `structure` share it.

    **Arguments:** `structure`, the tree structure of the pair (networks, normalisation).
    """

    @jax.jit
    def run(arrays, observations, key):
        networks, normalisation = jax.tree.unflatten(structure, [_transposed(array) for array in arrays])
        keys = jax.random.split(key, observations.shape[0])
        return decide(actor, networks, normalisation, observations, keys, budget)

    return run


def _transposed_on_host(array: Any) -> Array:
    """The transposed matrix (a vector stays as it is), computed by NumPy, so that nothing is compiled for its shape.

    It is on the array's device if that is fixed, else on the default device.
    """
    if array.ndim < 2 and isinstance(array, Array):
        return array
    transposed = np.ascontiguousarray(np.swapaxes(array, -1, -2) if array.ndim > 1 else array)
    return jax.device_put(transposed, array.sharding if getattr(array, "committed", False) else None)


def _transposed(array: Array) -> Array:
    return jnp.swapaxes(array, -1, -2) if array.ndim > 1 else array
