"""Random draws and losses that the agents with a flow policy share."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sorl.data.transitions import Transition
from sorl.functional import flows, td, verifiers
from sorl.functional.means import mean_over
from sorl.networks import CriticEnsemble, VelocityField


Metrics = dict[str, Float[Array, ""]]


class FlowDraws(eqx.Module):
    """The random draws of flow matching, for one update of one seed."""

    noise: Float[Array, "*seeds batch action"]
    time: Float[Array, "*seeds batch"]
    """Uniform on [0, 1)."""


class FlowActorCriticDraws(eqx.Module):
    """The random draws of one update of one seed, for a policy that is also trained by the critic."""

    flow: FlowDraws
    policy_noise: Float[Array, "*seeds batch action"]
    """Initial noise of the actions in the Q loss."""
    target_noise: Float[Array, "*seeds batch action"]
    """Initial noise of the next actions in the TD target."""


def draw_flow(batch_size: int, action_size: int, *, key: Key[Array, ""]) -> FlowDraws:
    """Noise and times of flow matching."""
    noise_key, time_key = jax.random.split(key)
    return FlowDraws(
        noise=jax.random.normal(noise_key, (batch_size, action_size), jnp.float32),
        time=jax.random.uniform(time_key, (batch_size,), jnp.float32),
    )


def draw_flow_actor_critic(batch_size: int, action_size: int, *, key: Key[Array, ""]) -> FlowActorCriticDraws:
    """Noise and times of flow matching, and noise for the policy's actions at this and the next observation."""
    flow_key, noise_key = jax.random.split(key)
    policy, target = jax.random.normal(noise_key, (2, batch_size, action_size), jnp.float32)
    return FlowActorCriticDraws(draw_flow(batch_size, action_size, key=flow_key), policy, target)


def flow_actions(
    field: VelocityField,
    observation: Float[Array, "batch observation"],
    noise: Float[Array, "batch action"],
    steps: int,
) -> Float[Array, "batch action"]:
    """The flow's actions, one for each row of noise."""
    return jax.vmap(lambda x, start: flows.sample(field, x, start, steps))(observation, noise)


def flow_matching_errors(field: VelocityField, batch: Transition, draws: FlowDraws) -> Float[Array, " batch"]:
    """The flow-matching error of each logged action."""
    return flows.flow_matching_errors(field, batch.observation, batch.action, draws.noise, draws.time)


def td_loss(
    critic: CriticEnsemble,
    target_critic: CriticEnsemble,
    batch: Transition,
    next_action: Float[Array, "batch action"],
    *,
    aggregation: verifiers.Aggregation,
) -> tuple[Float[Array, ""], Metrics]:
    """(Q(x, a) - r - discount * aggregate(Qbar(x', a')))^2, averaged over heads and valid rows.

    `discount` is gamma^n, 0 where the episode terminated within the window.
    """
    next_q = jax.vmap(target_critic)(batch.next_observation, next_action)
    target = td.td_target(batch.reward, batch.discount, next_q, aggregation=aggregation)
    q = jax.vmap(critic)(batch.observation, batch.action)
    loss = td.td_loss(q, target, batch.valid)
    q_mean, target_mean = mean_over(q, batch.valid), mean_over(target, batch.valid)
    return loss, {"critic_loss": loss, "q_mean": q_mean, "target_q_mean": target_mean}
