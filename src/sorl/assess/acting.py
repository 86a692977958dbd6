"""Actions of a policy, and its own critic's values, for many logged states, in the networks' units."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from sorl.agents import Budget
from sorl.agents.actors import AbstractActor, critic_values
from sorl.policy import Policy


BLOCK = 1024
"""Number of states that one call of a compiled program takes; the last block is padded."""

_ACTIONS = 2
"""The stream of the actions' noise; those of the fit with the same seed, in `sorl.assess.fitted_q`, are 0 and 1."""


def in_blocks(compute: Callable[..., PyTree], *columns: Shaped[Array | np.ndarray, "rows ..."]) -> Any:
    """Calls `compute` with `BLOCK` rows of each column at a time, so that one program serves any number of rows.

    **Returns:** the arrays of `compute` on the host, with as many rows as the columns have.
    """
    rows, on_host = len(columns[0]), [np.asarray(column) for column in columns]
    found = []
    for start in range(0, rows, BLOCK):
        places = np.minimum(np.arange(start, start + BLOCK), rows - 1)
        block = compute(*(column[places] for column in on_host))
        found.append(jax.tree.map(lambda leaf, rest=rows - start: np.asarray(leaf)[:rest], block))
    return jax.tree.map(lambda *blocks: np.concatenate(blocks), *found)


def decision_size(policy: Policy) -> int:
    """The length of one decision: that of an action, times the number of actions per decision."""
    return policy.chunk * policy.action_size


def varying(policy: Policy) -> Bool[np.ndarray, " decision"]:
    """Whether each number of a decision varied in the logs; a policy acts with the others as their constant, here 0."""
    low, high = np.asarray(policy.normalisation.action_low), np.asarray(policy.normalisation.action_high)
    return np.tile(low != high, policy.chunk)


def sampled_actions(
    policy: Policy,
    observations: Float[Array | np.ndarray, "rows observation"],
    budget: Budget,
    *,
    samples: int,
    seed: int,
) -> Float[np.ndarray, "rows samples action"]:
    """Independent decisions of a policy in each state; those of a row depend on the seed and its number only.

    **Arguments:** `observations` in the networks' units, as all results are.
    """
    key, size = jax.random.fold_in(jax.random.key(seed), _ACTIONS), decision_size(policy)

    def compute(rows, numbers):
        return _sampled(policy.actor, policy.networks, rows, numbers, key, budget, size=size, samples=samples)

    found = in_blocks(compute, observations, np.arange(len(observations), dtype=np.int32))
    return np.where(varying(policy), found, np.float32(0))


@partial(jax.jit, static_argnames=("size", "samples"))
def _sampled(
    actor: AbstractActor,
    networks: PyTree,
    observations: Float[Array, "rows observation"],
    numbers: Int[Array, " rows"],
    key: Key[Array, ""],
    budget: Budget,
    *,
    size: int,
    samples: int,
) -> Float[Array, "rows samples action"]:
    def one(observation, number):
        keys = jax.random.split(jax.random.fold_in(key, number), samples)
        draws = jax.vmap(lambda own: actor.draw_action(size, budget, key=own))(keys)
        return jax.vmap(lambda own: actor.act(networks, observation, own, budget))(draws)

    return jax.vmap(one)(observations, numbers)


def own_values(
    policy: Policy,
    observations: Float[Array | np.ndarray, "rows observation"],
    actions: Float[np.ndarray, "rows samples action"],
    budget: Budget,
) -> Float[np.ndarray, "rows heads"] | None:
    """The values of the policy's own critic, averaged over the actions of each row; None if it holds no critic."""
    of_one = observations[:1], actions[:1, 0]
    if jax.eval_shape(critic_values, policy.actor, policy.networks, *of_one, budget) is None:
        return None

    def compute(rows, own):
        return _own_values(policy.actor, policy.networks, rows, own, budget)

    return in_blocks(compute, observations, actions)


@jax.jit
def _own_values(
    actor: AbstractActor,
    networks: PyTree,
    observations: Float[Array, "rows observation"],
    actions: Float[Array, "rows samples action"],
    budget: Budget,
) -> Float[Array, "rows heads"]:
    rows = jnp.repeat(observations, actions.shape[1], axis=0)
    values = critic_values(actor, networks, rows, actions.reshape(len(rows), -1), budget)
    assert values is not None  # the caller has asked
    return jnp.mean(values.reshape(*actions.shape[:2], -1), axis=1)
