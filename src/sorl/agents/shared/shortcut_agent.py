"""What `Sorl` and `SorlReleased` have in common: random draws, and the settings they refuse."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sorl.agents.actors.shortcut import step_counts
from sorl.agents.shared.settings import (
    ANY_WEIGHT,
    SHARE,
    refuse_counts_below_one,
    refuse_empty_networks,
    refuse_outside,
    refuse_unknown_aggregation,
)


class SorlDraws(eqx.Module):
    """The random draws of one update that belong to one seed."""

    flow_noise: Float[Array, "*seeds batch action"]
    flow_time: Float[Array, "*seeds batch"]
    """Multiples of 1 / discretization_steps below 1."""
    consistency_noise: Float[Array, "*seeds batch action"]
    consistency_time: Float[Array, "*seeds batch"]
    """Multiples of the row's own step size below 1."""
    policy_noise: Float[Array, "*seeds batch action"]
    """Starts the actions of the Q loss."""
    target_noise: Float[Array, "*seeds batch action"]
    """Starts the next actions of the TD target."""


class SorlSharedDraws(eqx.Module):
    """The jump counts of one update, as indices into `step_counts`: they choose which branch runs."""

    policy_steps: Int[Array, ""]
    target_steps: Int[Array, ""]


def consistency_levels(batch_size: int, discretization_steps: int) -> np.ndarray:
    """log2 of the number of steps that each batch row's self-consistency step stands for: finest first.

    Rows are split evenly over the steps 1, 1 / 2, .., coarser than the finest; the remainder goes to 1.
    """
    levels = discretization_steps.bit_length() - 1
    rows = np.repeat(np.arange(levels - 1, -1, -1), batch_size // levels)
    return np.concatenate([rows, np.zeros(batch_size - len(rows), rows.dtype)]).astype(np.float32)


def draw(batch_size: int, action_size: int, discretization_steps: int, *, key: Key[Array, ""]) -> SorlDraws:
    """Noise and times of one update."""
    noise_key, flow_key, consistency_key = jax.random.split(key, 3)
    flow, consistency, policy, target = jax.random.normal(noise_key, (4, batch_size, action_size), jnp.float32)
    finest = jnp.full(batch_size, discretization_steps, flow.dtype)
    coarser = jnp.asarray(2.0 ** consistency_levels(batch_size, discretization_steps), flow.dtype)
    return SorlDraws(
        flow_noise=flow,
        flow_time=_grid_time(finest, key=flow_key),
        consistency_noise=consistency,
        consistency_time=_grid_time(coarser, key=consistency_key),
        policy_noise=policy,
        target_noise=target,
    )


def _grid_time(steps: Float[Array, " batch"], *, key: Key[Array, ""]) -> Float[Array, " batch"]:
    """Uniform on {0, 1 / steps, .., 1 - 1 / steps}, for each row's own number of steps."""
    return jnp.floor(jax.random.uniform(key, steps.shape, jnp.float32) * steps) / steps


def draw_shared(backprop_steps: int, *, key: Key[Array, ""]) -> SorlSharedDraws:
    """One jump count for the Q loss and one for the TD target, uniform over the step counts."""
    policy_steps, target_steps = jax.random.randint(key, (2,), 0, len(step_counts(backprop_steps)), jnp.int32)
    return SorlSharedDraws(policy_steps, target_steps)


def refuse_bad_settings(agent: Any) -> None:
    """Raises a `ValueError`, one sentence, for hyper-parameters that cannot train."""
    refuse_unknown_aggregation(agent)
    refuse_counts_below_one(agent, "critic_heads")
    refuse_empty_networks(agent, "hidden_sizes", "critic_hidden_sizes")
    refuse_outside(
        agent,
        learning_rate=ANY_WEIGHT,
        max_grad_norm=ANY_WEIGHT,
        discount=SHARE,
        target_rate=SHARE,
        flow_matching_coefficient=ANY_WEIGHT,
        self_consistency_coefficient=ANY_WEIGHT,
        q_coefficient=ANY_WEIGHT,
    )
