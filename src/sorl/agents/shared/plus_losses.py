"""The losses of `SorlPlus` that differ from those of `Sorl`, in the order of its docstring."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from sorl.agents.actors.shortcut import largest_trained
from sorl.agents.shared import shortcut_losses
from sorl.agents.shared.branches import gradient_of_one, one_of
from sorl.agents.shared.first_jumps import FirstJumps
from sorl.agents.shared.shortcut_agent import Metrics, SorlDraws, SorlState
from sorl.data.transitions import Transition
from sorl.functional import guidance, shortcut, td, verifiers
from sorl.functional.means import mean_over
from sorl.networks import CriticEnsemble, ShortcutField


def aggregation(pessimism: Any, otherwise: verifiers.Aggregation) -> verifiers.Aggregation | verifiers.HeadsToValue:
    """The mean minus `pessimism` standard deviations of the heads, or `otherwise` if it is None."""
    return otherwise if pessimism is None else partial(verifiers.lower_bound, k=pessimism)


def sample(
    agent: Any,
    field: shortcut.Field,
    observation: Float[Array, "batch observation"],
    noise: Float[Array, "*leading batch action"],
    steps: int,
) -> Float[Array, "*candidates batch action"]:
    """Actions by plain jumps, or by re-noised ones with the agent's `renoise`, as the agent's actor takes them.

    The field gets the largest trained number of steps that is not above `steps`.

    **Arguments:** `noise`, with a leading axis of `steps` if the jumps are re-noised, and then one of candidates if
    there are several.
    """
    rows = noise.shape[1:-1] if agent.renoise else noise.shape[:-1]
    repeated = jnp.broadcast_to(observation, (*rows, observation.shape[-1]))
    if agent.renoise:
        return shortcut.renoised_sample(field, repeated, noise, agent.discretization_steps)
    shown = largest_trained(steps, agent.discretization_steps)
    return shortcut.sample(field, repeated, noise, steps, conditioning=shown)


class PolicyValues(NamedTuple):
    """The policy's own actions and their values, from which the weights of the logged actions are computed."""

    action: Float[Array, "batch action"]
    q: Float[Array, " batch"]
    """The value by the online critic, as the Q loss aggregates its heads."""


def has_policy_loss_of_sorl(agent: Any) -> bool:
    """Whether the policy's loss is that of `Sorl`: no more terms, no weights of rows, and plain jumps."""
    alone = agent.cloning_weight is None and agent.distillation_coefficient is None
    return agent.use_q_loss and not agent.renoise and alone


def policy_gradient(
    agent: Any,
    state: SorlState,
    critic: CriticEnsemble,
    batch: Transition,
    draws: SorlDraws,
    index: Int[Array, ""],
    *,
    first: FirstJumps | None = None,
) -> tuple[PyTree, Metrics]:
    """The gradient of the policy's loss, and its metrics.

    The loss is flow matching + self-consistency + distillation + Q loss, each times its coefficient.

    **Arguments:** `critic`, the critic of the Q loss; `index` in `agent.step_counts` of its jump count; `first`, for a
    loss like that of `Sorl`, as for `shortcut_losses.policy_gradient`.
    """
    if has_policy_loss_of_sorl(agent):
        return shortcut_losses.policy_gradient(
            agent,
            state.field,
            state.target_field,
            critic,
            batch,
            draws,
            index,
            one_jump_share=agent.one_jump_share,
            aggregation=aggregation(agent.q_loss_pessimism, "mean"),
            first=first,
        )

    def of_q():
        return q_gradient(agent, state.field, critic, batch, draws, index)

    # The policy's own actions come first where the weights of the logged actions depend on them.
    guided = agent.cloning_weight is not None
    q_part = of_q() if guided else None
    own = None if q_part is None else q_part.values
    weight = None if own is None else cloning_weights(agent, state.target_critic, batch, own, index)

    def cloning(field):
        return cloning_loss(agent, field, state.target_field, batch, draws, weight)

    gradient, (loss, metrics) = jax.grad(cloning, has_aux=True)(state.field)
    if weight is not None:
        metrics["cloning_weight_mean"] = mean_over(weight, batch.valid)
    if not agent.use_q_loss:
        return gradient, metrics | {"policy_loss": loss}
    # Two gradients are added, so that only the Q loss runs in the branch of the drawn jump count.
    q_part = q_part or of_q()
    metrics |= q_part.metrics | {"policy_loss": loss + agent.q_coefficient * q_part.metrics["q_loss"]}
    return jax.tree.map(jnp.add, gradient, q_part.gradient), metrics


def cloning_weights(
    agent: Any, target_critic: CriticEnsemble, batch: Transition, own: PolicyValues, index: Int[Array, ""]
) -> Float[Array, " batch"]:
    """w = sigmoid((Qbar(x, a, k) - Qbar(x, F_k(x, z), k)) / (eta mean |Q|)), without a gradient, for each row."""
    k = jnp.asarray(agent.step_counts, batch.reward.dtype)[index]
    heads = aggregation(agent.target_pessimism, agent.q_aggregation)
    logged, policy = (
        verifiers.aggregate(target_critic(batch.observation, action, k), heads) for action in (batch.action, own.action)
    )
    scale = jnp.mean(jnp.abs(own.q)) if agent.normalise_cloning_weight else 1.0
    return guidance.guidance_weight(logged, policy, agent.cloning_weight, scale)


def cloning_loss(
    agent: Any,
    field: ShortcutField,
    teacher: ShortcutField,
    batch: Transition,
    draws: SorlDraws,
    weight: Float[Array, " batch"] | None,
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Metrics]]:
    """Flow matching, self-consistency and distillation, each times its coefficient.

    **Returns:** their sum, and as auxiliary values the sum again and its parts by name.
    """
    flow_matching, self_consistency = shortcut_losses.cloning_losses(
        field, teacher, batch, draws, agent.discretization_steps, one_jump_share=agent.one_jump_share, weight=weight
    )
    loss = agent.flow_matching_coefficient * flow_matching + agent.self_consistency_coefficient * self_consistency
    metrics = {"flow_matching_loss": flow_matching, "self_consistency_loss": self_consistency}
    if agent.distillation_coefficient is not None:
        noise = draws.policy_noise[0] if agent.renoise else draws.policy_noise
        taught = shortcut.sample(teacher, batch.observation, noise, agent.discretization_steps)
        action = shortcut.sample(field, batch.observation, noise, 1, clip=False)
        metrics["distillation_loss"] = jnp.mean((action - jax.lax.stop_gradient(taught)) ** 2)
        loss = loss + agent.distillation_coefficient * metrics["distillation_loss"]
    return loss, (loss, metrics)


class QPart(NamedTuple):
    """The results of the Q loss; if the agent does not use it, only the values."""

    gradient: PyTree | None
    metrics: Metrics
    values: PolicyValues | None
    """None if no weight depends on them."""


def q_gradient(
    agent: Any, field: ShortcutField, critic: CriticEnsemble, batch: Transition, draws: SorlDraws, index: Int[Array, ""]
) -> QPart:
    """The gradient of -mean Q(x, F_k(x, z), k) / mean |Q| times its coefficient, for the drawn k."""
    heads = aggregation(agent.q_loss_pessimism, "mean")

    def valued(field, steps: int):
        action = sample(agent, field, batch.observation, draws.policy_noise, steps)
        return action, critic(batch.observation, action, jnp.asarray(float(steps), action.dtype))

    def kept(action, q):
        return None if agent.cloning_weight is None else PolicyValues(action, verifiers.aggregate(q, heads))

    def weighted_loss(field, steps: int):
        action, q = valued(field, steps)
        loss = td.policy_q_loss(q, aggregation=heads)
        metrics = {"q_loss": loss, "policy_q_mean": jnp.mean(q)}
        return agent.q_coefficient * loss, (metrics, kept(action, q))

    if not agent.use_q_loss:
        values = one_of(lambda field, steps: kept(*valued(field, steps)), field, index, agent.step_counts)
        return QPart(None, {}, values)
    gradient, (metrics, values) = gradient_of_one(weighted_loss, field, index, agent.step_counts)
    return QPart(gradient, metrics, values)
