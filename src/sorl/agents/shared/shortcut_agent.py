"""What `Sorl` and `SorlReleased` have in common: networks, random draws, acting, and the settings they refuse."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sorl.agents.budget import Budget, Budgets
from sorl.agents.shared.settings import (
    ANY_WEIGHT,
    SHARE,
    refuse_counts_below_one,
    refuse_empty_networks,
    refuse_outside,
    refuse_unknown_aggregation,
)
from sorl.functional import shortcut, verifiers
from sorl.networks import CriticEnsemble, ShortcutField


def budgets(discretization_steps: int) -> Budgets:
    """Any number of jumps and candidates; evaluated at the step counts of the paper, some of them beyond the trained.

    The usual number of jumps is 4, or the largest trained number where that is less.
    """
    return Budgets(
        usual=Budget(inference_steps=min(4, discretization_steps)),
        inference_steps=(1, 2, 4, 8),
        candidates=(1, 8),
        trained_steps=step_counts(discretization_steps),
        other_inference_steps=True,
        other_candidates=True,
        other_verifiers=True,
    )


class SorlPolicy(eqx.Module):
    """What acting needs: the field makes candidates, the critic chooses among them."""

    field: ShortcutField
    critic: CriticEnsemble


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


class SoftmaxDraws(eqx.Module):
    """The random draws of a decision that samples among its candidates, too."""

    noise: Float[Array, "*batch candidates action"]
    """Starts the candidates."""
    gumbel: Float[Array, "*batch candidates"]
    """Standard Gumbel noise, one number for each candidate's value."""


ActionDraws = Float[Array, "candidates action"] | SoftmaxDraws
"""The initial noise of each candidate, and where the choice among them is random what it needs."""


def step_counts(most: int) -> tuple[int, ...]:
    """1, 2, 4, .., `most`, which is a power of two."""
    return tuple(2**level for level in range(most.bit_length()))


def largest_trained(steps: int, most: int) -> int:
    """The largest power of two that is neither above `steps` nor above `most`."""
    return min(2 ** (steps.bit_length() - 1), most)


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


def draw_action(action_size: int, budget: Budget, *, key: Key[Array, ""]) -> ActionDraws:
    """The random draws of one decision."""
    shape = (budget.candidates, action_size)
    if not budget.chooses_by_softmax:
        return jax.random.normal(key, shape, jnp.float32)
    noise_key, choice_key = jax.random.split(key)
    return SoftmaxDraws(
        jax.random.normal(noise_key, shape, jnp.float32), jax.random.gumbel(choice_key, shape[:1], jnp.float32)
    )


def act(
    policy: SorlPolicy,
    observation: Float[Array, " observation"],
    draws: ActionDraws,
    budget: Budget,
    *,
    discretization_steps: int,
    backprop_steps: int,
    q_aggregation: verifiers.Aggregation,
) -> Float[Array, " action"]:
    """Samples one action for each row of noise, and returns the one that the critic values most, or draws by value."""
    if isinstance(draws, SoftmaxDraws):
        noise, perturbation = draws.noise, budget.softmax_temperature * draws.gumbel
    else:
        noise, perturbation = draws, None
    steps = budget.inference_steps
    policy_steps = budget.policy_conditioning or largest_trained(steps, discretization_steps)

    def candidate(start):
        return shortcut.sample(policy.field, observation, start, steps, conditioning=policy_steps)

    critic_steps = jnp.asarray(budget.critic_conditioning or largest_trained(steps, backprop_steps), noise.dtype)

    def value(action):
        return policy.critic(observation, action, critic_steps)

    aggregation = budget.q_aggregation or q_aggregation
    return verifiers.choose(candidate, value, budget.noise_scale * noise, aggregation, perturbation)


def refuse_bad_settings(agent: Any) -> None:
    """Raises a `ValueError`, one sentence, for hyper-parameters that cannot train."""
    for name in ("discretization_steps", "backprop_steps"):
        value = getattr(agent, name)
        if value < 1 or value & (value - 1):
            raise ValueError(f"{name} is {value}; it counts halvings of the unit interval: give a power of two.")
    if agent.discretization_steps < 2:
        raise ValueError(
            f"discretization_steps is {agent.discretization_steps}; self-consistency needs two half steps: "
            "give at least 2."
        )
    if agent.backprop_steps > agent.discretization_steps:
        raise ValueError(
            f"backprop_steps is {agent.backprop_steps} but the finest trained grid has {agent.discretization_steps} "
            "steps; lower backprop_steps or raise discretization_steps."
        )
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
