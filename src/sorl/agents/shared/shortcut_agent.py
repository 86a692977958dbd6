"""The random draws that `Sorl` and `SorlReleased` share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sorl.agents.actors.shortcut import step_counts


class SorlDraws(eqx.Module):
    """The random draws of one update that belong to one seed."""

    flow_noise: Float[Array, "*seeds batch action"]
    flow_time: Float[Array, "*seeds batch"]
    """Multiples of 1 / discretization_steps, below 1."""
    consistency_noise: Float[Array, "*seeds batch action"]
    consistency_time: Float[Array, "*seeds batch"]
    """Multiples of the row's own step size, below 1."""
    policy_noise: Float[Array, "*seeds batch action"]
    """Initial noise of the actions in the Q loss."""
    target_noise: Float[Array, "*seeds batch action"]
    """Initial noise of the next actions in the TD target."""


class SorlSharedDraws(eqx.Module):
    """The jump counts of one update, as indices into `step_counts`; they choose the branch that runs."""

    policy_steps: Int[Array, ""]
    target_steps: Int[Array, ""]


def consistency_levels(batch_size: int, discretization_steps: int) -> np.ndarray:
    """log2 of 1 / d for the step size d of each batch row's self-consistency loss, finest first.

    Rows are split evenly over the step sizes 1, 1 / 2, .. that are coarser than the finest; the rest have step size 1.
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
    """Uniform draws on {0, 1 / steps, .., 1 - 1 / steps}, for each row's own number of steps."""
    return jnp.floor(jax.random.uniform(key, steps.shape, jnp.float32) * steps) / steps


def draw_shared(backprop_steps: int, *, key: Key[Array, ""]) -> SorlSharedDraws:
    """One jump count for the Q loss and one for the TD target, uniform over the step counts."""
    policy_steps, target_steps = jax.random.randint(key, (2,), 0, len(step_counts(backprop_steps)), jnp.int32)
    return SorlSharedDraws(policy_steps, target_steps)
