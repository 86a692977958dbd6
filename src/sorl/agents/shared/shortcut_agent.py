"""The state, the steps and the random draws that the agents with a shortcut policy share."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.shared.schedules import linear_decay
from sorl.functional import optimisation
from sorl.networks import CriticEnsemble, ShortcutField


Metrics = dict[str, Float[Array, ""]]


class SorlState(eqx.Module):
    """Everything that training changes for one seed."""

    field: ShortcutField
    target_field: ShortcutField
    """Moving average of `field`: the teacher of self-consistency."""
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: evaluates the next action in the TD target."""
    field_optimiser: PyTree
    critic_optimiser: PyTree


class SorlDraws(eqx.Module):
    """The random draws of one update that belong to one seed."""

    flow_noise: Float[Array, "*seeds batch action"]
    flow_time: Float[Array, "*seeds batch"]
    """Multiples of 1 / discretization_steps, below 1."""
    consistency_noise: Float[Array, "*seeds batch action"]
    consistency_time: Float[Array, "*seeds batch"]
    """Multiples of the row's own step size, below 1."""
    policy_noise: Float[Array, "*policy batch action"]
    """Initial noise of the actions in the Q loss; a leading axis of jumps if each has fresh noise."""
    target_noise: Float[Array, "*target batch action"]
    """Initial noise of the next actions in the TD target; leading axes of jumps and candidates if there are several."""


class SorlSharedDraws(eqx.Module):
    """The jump counts of one update, as indices into `step_counts`; they choose the branch that runs."""

    policy_steps: Int[Array, ""]
    target_steps: Int[Array, ""]


def init(agent: Any, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlState:
    """Fresh networks with the agent's sizes, moving averages equal to them, and new optimiser states."""
    field_key, critic_key = jax.random.split(key)
    field: Any = ShortcutField(observation_size, action_size, agent.hidden_sizes, key=field_key)
    critic: Any = CriticEnsemble(
        observation_size,
        action_size,
        agent.critic_hidden_sizes,
        heads=agent.critic_heads,
        sees_steps=agent.critic_sees_steps,
        key=critic_key,
    )
    # The targets are copies: donating a state that holds one buffer twice is an error.
    return SorlState(
        field=field,
        target_field=jax.tree.map(jnp.copy, field),
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        field_optimiser=optimisation.init(field),
        critic_optimiser=optimisation.init(critic),
    )


def update(
    agent: Any,
    state: SorlState,
    critic_gradient: Callable[[], tuple[PyTree, PyTree | None, Metrics]],
    policy_gradient: Callable[[CriticEnsemble], tuple[PyTree, Metrics]],
    *,
    teacher_rate: float | Float[Array, ""],
) -> tuple[SorlState, Metrics]:
    """One critic step, one policy step with the new critic, and the moving averages of the new networks, in this order.

    **Arguments:** `agent`, for its learning rates; `critic_gradient`, which returns the gradient of the TD loss for the
    critic, for the policy (None: none), and metrics; `policy_gradient`, from the new critic to the gradient of the
    policy's loss and metrics; `teacher_rate`, the rate of the field's moving average.
    """
    rates: Any = {
        "learning_rate": _learning_rate(agent, state.critic_optimiser.count),
        "max_grad_norm": agent.max_grad_norm,
    }
    # (1) The critic, towards the TD target.
    gradient, td_gradient, critic_metrics = critic_gradient()
    critic, critic_optimiser, critic_norm = optimisation.step(gradient, state.critic_optimiser, state.critic, **rates)

    # (2) The policy: flow matching, self-consistency, and the Q loss with the new critic.
    gradient, policy_metrics = policy_gradient(critic)
    metrics = critic_metrics | policy_metrics | {"critic_grad_norm": critic_norm}
    if td_gradient is not None:
        metrics["td_policy_grad_norm"] = optimisation.norm(td_gradient)
        gradient = jax.tree.map(jnp.add, gradient, td_gradient)
    field, field_optimiser, metrics["policy_grad_norm"] = optimisation.step(
        gradient, state.field_optimiser, state.field, **rates
    )

    # (3) The moving averages, of the new networks.
    after = SorlState(
        field=field,
        target_field=optimisation.moving_average(field, state.target_field, teacher_rate),
        critic=critic,
        target_critic=optimisation.moving_average(critic, state.target_critic, agent.target_rate),
        field_optimiser=field_optimiser,
        critic_optimiser=critic_optimiser,
    )
    return after, metrics


def _learning_rate(agent: Any, step: Int[Array, "*seeds"]):
    if agent.late_learning_rate is None:
        return agent.learning_rate
    return linear_decay(agent.learning_rate, agent.late_learning_rate, step, agent.decay_start, agent.decay_end)


def consistency_levels(batch_size: int, discretization_steps: int, one_jump_share: float | None = None) -> np.ndarray:
    """log2 of 1 / d for the step size d of each batch row's self-consistency loss, finest first.

    Rows are split evenly over the step sizes 1, 1 / 2, .. that are coarser than the finest; the rest have step size 1.
    With `one_jump_share`, this share of the rows has step size 1, and the others are split evenly.
    """
    levels = discretization_steps.bit_length() - 1
    if one_jump_share is None or levels == 1:
        rows = np.repeat(np.arange(levels - 1, -1, -1), batch_size // levels)
    else:
        others = batch_size - round(one_jump_share * batch_size)
        rows = np.sort(np.resize(np.arange(levels - 1, 0, -1), others))[::-1]
    return np.concatenate([rows, np.zeros(batch_size - len(rows), rows.dtype)]).astype(np.float32)


def draw(
    batch_size: int,
    action_size: int,
    discretization_steps: int,
    *,
    one_jump_share: float | None = None,
    key: Key[Array, ""],
) -> SorlDraws:
    """Noise and times of one update; `one_jump_share` as for `consistency_levels`."""
    noise_key, flow_key, consistency_key = jax.random.split(key, 3)
    flow, consistency, policy, target = jax.random.normal(noise_key, (4, batch_size, action_size), jnp.float32)
    finest = jnp.full(batch_size, discretization_steps, flow.dtype)
    levels = consistency_levels(batch_size, discretization_steps, one_jump_share)
    coarser = jnp.asarray(2.0**levels, flow.dtype)
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


def draw_shared(
    choices: int, *, policy_weights: tuple[float, ...] | None = None, key: Key[Array, ""]
) -> SorlSharedDraws:
    """The indices of one jump count for the Q loss and one for the TD target, uniform over 0, .., `choices` - 1.

    With `policy_weights`, one per choice, the index of the Q loss has probabilities in proportion to them.
    """
    policy_steps, target_steps = jax.random.randint(key, (2,), 0, choices, jnp.int32)
    if policy_weights is not None:
        # Invert the cumulative distribution: count the bounds between the choices that a uniform draw reaches.
        bounds = jnp.asarray(np.cumsum(policy_weights)[:-1] / np.sum(policy_weights), jnp.float32)
        # 2, because `randint` splits the key into 0 and 1.
        uniform = jax.random.uniform(jax.random.fold_in(key, 2), (), jnp.float32)
        policy_steps = jnp.sum(uniform >= bounds, dtype=jnp.int32)
    return SorlSharedDraws(policy_steps, target_steps)
