"""One decision for each row of a batch, and the same as a program that costs a deployed policy little to call."""

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


Program = Callable[[tuple[Array, ...], np.ndarray, Array], Array]
"""Actions from `program_arrays`, a batch of observations, and one random key."""


@jax.jit
def decide(
    actor: AbstractActor,
    networks: PyTree,
    normalisation: Normalisation,
    observations: Float[Array, "batch observation"],
    keys: Key[Array, " batch"],
    budget: Budget,
) -> Float[Array, "batch *chunk action"]:
    """One decision for each row, in the environment's units; row `i` draws from `keys[i]` alone.

    **Returns:** an action for each row, or where the actor gives several at once a chunk of them, in their order.
    """
    action_size = actor.actions_at_once * normalisation.action_low.shape[0]
    with jax.enable_x64(False):  # float64 draws from the same key would be other numbers
        draws = jax.vmap(lambda key: actor.draw_action(action_size, budget, key=key))(keys)
    return act(actor, networks, normalisation, observations, draws, budget)


def act(
    actor: AbstractActor,
    networks: PyTree,
    normalisation: Normalisation,
    observations: Float[Array, "batch observation"],
    draws: PyTree,
    budget: Budget,
) -> Float[Array, "batch *chunk action"]:
    """As `decide`, from the draws of `actor.draw_action`, stacked: row `i` acts with `draws[i]`.

    All is computed in single precision, also where `JAX_ENABLE_X64` makes double precision jax's default.
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
    """All arrays in a flat tuple, as `program` takes them: with no tree to walk at each call, and matrices transposed.

    A lone row is multiplied by each layer's transposed matrix; from the stored one, XLA's CPU backend would make that
    at every call, which takes longer than the product.
    """
    return tuple(_transposed(leaf) for leaf in jax.tree.leaves((networks, normalisation)))


@functools.cache
def program(actor: AbstractActor, structure: Any, budget: Budget) -> Program:
    """The program that decides at `budget`; policies of one actor and `structure` share it, and what it compiles.

    **Arguments:** `structure`, of the pair (networks, normalisation).
    """

    @jax.jit
    def run(arrays, observations, key):
        networks, normalisation = jax.tree.unflatten(structure, [_transposed(array) for array in arrays])
        keys = jax.random.split(key, observations.shape[0])
        return decide(actor, networks, normalisation, observations, keys, budget)

    return run


def _transposed(array: Array) -> Array:
    return jnp.swapaxes(array, -1, -2) if array.ndim > 1 else array
