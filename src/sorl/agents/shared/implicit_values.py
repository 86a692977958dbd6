"""Implicit value learning: V is an expectile of Q over the logged actions, and Q bootstraps from V (IQL, section 4).

The critic is never evaluated at actions outside the data. All agents with IQL's values use this file.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sorl.data.transitions import Transition
from sorl.functional import expectile as values, optimisation, td, verifiers
from sorl.functional.means import mean_over
from sorl.networks import CriticEnsemble, Value


Metrics = dict[str, Float[Array, ""]]

METRICS = ("value_loss", "v_mean", "critic_loss", "q_mean", "target_q_mean", "value_grad_norm", "critic_grad_norm")
"""Names of the metrics that `step` returns."""


class ImplicitValues(eqx.Module):
    """V, Q, its moving average and the optimisers, for one seed."""

    value: Value
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: the target of V's regression."""
    value_optimiser: PyTree
    critic_optimiser: PyTree


def init(
    observation_size: int, action_size: int, hidden_sizes: tuple[int, ...], heads: int, *, key: Key[Array, ""]
) -> ImplicitValues:
    """Fresh networks, the target equal to the critic."""
    value_key, critic_key = jax.random.split(key)
    value = Value(observation_size, hidden_sizes, key=value_key)
    critic = CriticEnsemble(observation_size, action_size, hidden_sizes, heads=heads, sees_steps=False, key=critic_key)
    return ImplicitValues(
        value=value,
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        value_optimiser=optimisation.init(value),
        critic_optimiser=optimisation.init(critic),
    )


def target_q(networks: ImplicitValues, batch: Transition, aggregation: verifiers.Aggregation) -> Float[Array, " batch"]:
    """The target critic's value of each logged action, aggregated over the heads."""
    return verifiers.aggregate(jax.vmap(networks.target_critic)(batch.observation, batch.action), aggregation)


def value_loss(
    value: Value, batch: Transition, q: Float[Array, " batch"], expectile: Any
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of expectile regression of V(x) on `q`."""
    v = jax.vmap(value)(batch.observation)
    loss = values.expectile_loss(q, v, expectile, batch.valid)
    return loss, {"value_loss": loss, "v_mean": mean_over(v, batch.valid)}


def critic_loss(critic: CriticEnsemble, value: Value, batch: Transition) -> tuple[Float[Array, ""], Metrics]:
    """(Q(x, a) - r - discount * V(x'))^2, averaged over heads and valid rows; V gets no gradient.

    `discount` is gamma^n, 0 where the episode terminated within the window.
    """
    next_v = jax.vmap(value)(batch.next_observation)
    target = td.td_target(batch.reward, batch.discount, next_v[:, None], aggregation="mean")
    q = jax.vmap(critic)(batch.observation, batch.action)
    loss = td.td_loss(q, target, batch.valid)
    q_mean, target_mean = mean_over(q, batch.valid), mean_over(target, batch.valid)
    return loss, {"critic_loss": loss, "q_mean": q_mean, "target_q_mean": target_mean}


def step(
    networks: ImplicitValues,
    batch: Transition,
    q: Float[Array, " batch"],
    *,
    expectile: Any,
    learning_rate: Any,
    target_rate: Any,
) -> tuple[ImplicitValues, Metrics]:
    """One step of V towards `q`, one of the critic with the new V in its target, then the critic's moving average.

    **Arguments:** `q`, the result of `target_q`, which the caller computes because policies may need it too.
    """
    # V, towards the target critic's values.
    gradient, value_metrics = jax.grad(value_loss, has_aux=True)(networks.value, batch, q, expectile)
    value, value_optimiser, value_norm = optimisation.step(
        gradient, networks.value_optimiser, networks.value, learning_rate=learning_rate
    )
    # The critic, with the new V in its target.
    gradient, critic_metrics = jax.grad(critic_loss, has_aux=True)(networks.critic, value, batch)
    critic, critic_optimiser, critic_norm = optimisation.step(
        gradient, networks.critic_optimiser, networks.critic, learning_rate=learning_rate
    )
    # The moving average takes the new critic.
    after = ImplicitValues(
        value=value,
        critic=critic,
        target_critic=optimisation.moving_average(critic, networks.target_critic, target_rate),
        value_optimiser=value_optimiser,
        critic_optimiser=critic_optimiser,
    )
    return after, value_metrics | critic_metrics | {"value_grad_norm": value_norm, "critic_grad_norm": critic_norm}


def losses(
    networks: ImplicitValues, batch: Transition, *, expectile: Any, aggregation: verifiers.Aggregation
) -> Metrics:
    """The losses of V and Q at the current parameters."""
    _, value_metrics = value_loss(networks.value, batch, target_q(networks, batch, aggregation), expectile)
    _, critic_metrics = critic_loss(networks.critic, networks.value, batch)
    return value_metrics | critic_metrics
