"""The losses of a shortcut policy and its critic, in the order of the docstring of `Sorl`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from sorl.agents.shared import first_jumps
from sorl.agents.shared.branches import gradient_of_one, one_of
from sorl.agents.shared.first_jumps import FirstJumps, first_query, with_first_known
from sorl.agents.shared.shortcut_agent import Metrics, SorlDraws, SorlState, consistency_levels
from sorl.data.transitions import Transition
from sorl.functional import shortcut, td, verifiers
from sorl.functional.means import mean_over
from sorl.networks import CriticEnsemble, ShortcutField, applications
from sorl.system.accelerators import bound_by_kernels, on_accelerator


NextAction = Callable[..., Float[Array, "*candidates batch action"]]
"""The map from a field and the keyword `steps`, a number of jumps, to actions at the next observations."""


def td_loss(
    critic: CriticEnsemble,
    target_critic: CriticEnsemble,
    batch: Transition,
    next_action: Float[Array, "*candidates batch action"],
    steps: Int[Array, ""] | int,
    *,
    aggregation: verifiers.Aggregation | verifiers.HeadsToValue,
    stop_gradient: bool,
) -> tuple[Float[Array, ""], Metrics]:
    """The TD loss of `critic`, for a policy whose `next_action` took `steps` jumps.

    If `next_action` has a leading axis of candidates, the target is the value of the best one.
    """
    k = jnp.asarray(steps, batch.reward.dtype)
    rows = (*next_action.shape[:-1], batch.next_observation.shape[-1])
    next_q = target_critic(jnp.broadcast_to(batch.next_observation, rows), next_action, k)
    make_target = td.td_target if next_action.ndim == batch.action.ndim else td.expected_max_target
    target = make_target(batch.reward, batch.discount, next_q, aggregation=aggregation, stop_gradient=stop_gradient)
    q = critic(batch.observation, batch.action, k)
    loss = td.td_loss(q, target, batch.valid)
    q_mean, target_mean = mean_over(q, batch.valid), mean_over(target, batch.valid)
    return loss, {"critic_loss": loss, "q_mean": q_mean, "target_q_mean": target_mean}


def critic_gradient(
    agent: Any,
    state: SorlState,
    batch: Transition,
    next_action: NextAction,
    index: Int[Array, ""],
    *,
    aggregation: verifiers.Aggregation | verifiers.HeadsToValue,
    backup_steps: int | None = None,
) -> tuple[PyTree, PyTree | None, Metrics]:
    """The gradient of the TD loss for the critic, for the policy (None without `td_gradient_to_policy`), and metrics.

    **Arguments:** `agent`, for its step counts; `next_action`, the map from a field and `steps` to the actions at the
    next observations; `index` in `agent.step_counts` of the jump count; `backup_steps`, the number of jumps of the next
    actions if it is not that jump count.
    """

    def loss(critic, action, steps):
        return td_loss(
            critic,
            state.target_critic,
            batch,
            action,
            steps,
            aggregation=aggregation,
            stop_gradient=not agent.td_gradient_to_policy,
        )

    # With a gradient to the policy, the whole loss is differentiated in the branch of the drawn jump count.
    if agent.td_gradient_to_policy:
        (of_critic, of_policy), metrics = gradient_of_one(
            lambda networks, steps: loss(networks[0], next_action(networks[1], steps=backup_steps or steps), steps),
            (state.critic, state.field),
            index,
            agent.step_counts,
        )
        return of_critic, of_policy, metrics
    # Else only the action is computed in a branch, so that the critic's part is compiled once for all jump counts.
    choices = agent.step_counts if backup_steps is None else (backup_steps,)
    action = one_of(next_action, state.field, index, choices)
    steps = jnp.asarray(agent.step_counts, jnp.int32)[index]
    of_critic, metrics = jax.grad(loss, has_aux=True)(state.critic, action, steps)
    return of_critic, None, metrics


def cloning_losses(
    field: ShortcutField,
    teacher: ShortcutField,
    batch: Transition,
    draws: SorlDraws,
    discretization_steps: int,
    *,
    one_jump_share: float | None = None,
    weight: Float[Array, " batch"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The flow-matching loss and the self-consistency loss of `field`, over the valid rows of the batch.

    **Arguments:** `one_jump_share`, as for `consistency_levels`; `weight` of each row in both losses (None: 1).
    """
    both = cloning_queries(teacher, batch, draws, discretization_steps, one_jump_share=one_jump_share)
    # One forward pass for the rows of both losses, because both evaluate the same field.
    queries = jax.tree.map(lambda *rows: jnp.concatenate(rows), *both)
    halves = shortcut.query_errors(field, queries).reshape(2, -1)
    if weight is not None:
        halves = weight[None] * halves
    if batch.valid is None:
        first, second = jnp.mean(halves, axis=1)
        return first, second
    return mean_over(halves[0], batch.valid), mean_over(halves[1], batch.valid)


def cloning_queries(
    teacher: ShortcutField,
    batch: Transition,
    draws: SorlDraws,
    discretization_steps: int,
    *,
    one_jump_share: float | None = None,
) -> tuple[shortcut.Query, shortcut.Query]:
    """The queries of the flow-matching loss and those of the self-consistency loss, one for each row of the batch."""
    flow_matching = shortcut.flow_matching_query(
        batch.observation, batch.action, draws.flow_noise, draws.flow_time, discretization_steps
    )
    levels = consistency_levels(len(batch.reward), discretization_steps, one_jump_share)
    self_consistency = shortcut.self_consistency_query(
        teacher,
        batch.observation,
        batch.action,
        draws.consistency_noise,
        draws.consistency_time,
        jnp.asarray(levels, batch.reward.dtype),
    )
    return flow_matching, self_consistency


def q_loss(
    field: shortcut.Field,
    critic: CriticEnsemble,
    observation: Float[Array, "batch observation"],
    noise: Float[Array, "batch action"],
    steps: int,
    *,
    aggregation: verifiers.Aggregation | verifiers.HeadsToValue = "mean",
) -> tuple[Float[Array, ""], Metrics]:
    """-mean Q(x, F_k(x, z), k) / mean |Q|, for k = `steps` jumps from the noise z, Q the `aggregation` of the heads."""
    action = shortcut.sample(field, observation, noise, steps)
    q = critic(observation, action, jnp.asarray(float(steps), action.dtype))
    loss = td.policy_q_loss(q, aggregation=aggregation)
    return loss, {"q_loss": loss, "policy_q_mean": jnp.mean(q)}


def policy_gradient(
    agent: Any,
    field: ShortcutField,
    teacher: ShortcutField,
    critic: CriticEnsemble,
    batch: Transition,
    draws: SorlDraws,
    index: Int[Array, ""],
    *,
    one_jump_share: float | None = None,
    aggregation: verifiers.Aggregation | verifiers.HeadsToValue = "mean",
    first: FirstJumps | None = None,
) -> tuple[PyTree, Metrics]:
    """The gradient of the policy's loss: flow matching + self-consistency + Q loss, each times its coefficient.

    **Arguments:** `agent`, for its coefficients and step counts; `teacher`, the field that gives the self-consistency
    targets; `critic`, the critic of the Q loss, and the `aggregation` of its heads; `index` in `agent.step_counts` of
    the jump count of the Q loss; `one_jump_share`, as for `consistency_levels`; `first`, the result of
    `first_jumps_at_once` (None: it is computed if it is needed).
    """

    def cloning_loss(field):
        flow_matching, self_consistency = cloning_losses(
            field, teacher, batch, draws, agent.discretization_steps, one_jump_share=one_jump_share
        )
        loss = agent.flow_matching_coefficient * flow_matching + agent.self_consistency_coefficient * self_consistency
        return loss, (loss, {"flow_matching_loss": flow_matching, "self_consistency_loss": self_consistency})

    def weighted_q_loss(field, steps: int):
        loss, metrics = q_loss(field, critic, batch.observation, draws.policy_noise, steps, aggregation=aggregation)
        return agent.q_coefficient * loss, metrics

    if on_accelerator():
        if first is None:
            first = first_jumps_at_once(agent, field, teacher, batch, draws, index, None, one_jump_share=one_jump_share)
        return _policy_gradient_at_once(agent, field, batch, first, weighted_q_loss, index)
    # Two gradients are added, so that only the Q loss runs in the branch of the drawn jump count.
    cloning_gradient, (cloning, metrics) = jax.grad(cloning_loss, has_aux=True)(field)
    q_gradient, q_metrics = gradient_of_one(weighted_q_loss, field, index, agent.step_counts)
    metrics |= q_metrics | {"policy_loss": cloning + agent.q_coefficient * q_metrics["q_loss"]}
    return jax.tree.map(jnp.add, cloning_gradient, q_gradient), metrics


def first_jumps_at_once(
    agent: Any,
    field: ShortcutField,
    teacher: ShortcutField,
    batch: Transition,
    draws: SorlDraws,
    policy_steps: Int[Array, ""],
    target_steps: Int[Array, ""] | None,
    *,
    one_jump_share: float | None = None,
) -> FirstJumps:
    """The field's application to the queries of the cloning losses and to the first jumps of Q loss and TD target.

    **Arguments:** `teacher` and `one_jump_share`, as for `policy_gradient`; `policy_steps` and `target_steps`, indices
    in `agent.step_counts` of the jump counts of Q loss and TD target (None: the target's first jump is not computed
    here). The target's first jump is also not computed here if the target has a gradient, and for many seeds or on many
    devices, where copies of the other rows would take longer than the kernels of this jump.
    """
    cloning = cloning_queries(teacher, batch, draws, agent.discretization_steps, one_jump_share=one_jump_share)
    policy = first_query(batch.observation, draws.policy_noise, agent.step_counts, policy_steps)
    target = None
    if target_steps is not None and not agent.td_gradient_to_policy and bound_by_kernels():
        target = first_query(batch.next_observation, draws.target_noise, agent.step_counts, target_steps)
    return first_jumps.apply(field, cloning, policy, target)


def _policy_gradient_at_once(
    agent: Any,
    field: ShortcutField,
    batch: Transition,
    first: FirstJumps,
    weighted_q_loss: Callable[..., tuple[Float[Array, ""], Metrics]],
    index: Int[Array, ""],
) -> tuple[PyTree, Metrics]:
    """The gradient and the metrics of `policy_gradient` on an accelerator, equal up to rounding, with fewer kernels.

    The whole loss is in the branch of the drawn jump count, so that all applications of the field share the products of
    the parameters' gradients.
    """

    def loss(field, steps: int):
        queries = first.policy
        velocity = field(queries.observation, queries.action, queries.time, queries.log2_steps)
        errors = jnp.mean((velocity - queries.velocity) ** 2, axis=-1).reshape(3, -1)[:2]
        flow_matching, self_consistency = jax.vmap(lambda errors: mean_over(errors, batch.valid))(errors)
        of_q, metrics = weighted_q_loss(with_first_known(field, jnp.split(velocity, 3)[2]), steps)
        cloning = (
            agent.flow_matching_coefficient * flow_matching + agent.self_consistency_coefficient * self_consistency
        )
        losses = {"flow_matching_loss": flow_matching, "self_consistency_loss": self_consistency}
        return cloning + of_q, metrics | losses | {"policy_loss": cloning + of_q}

    grad = partial(applications.grad, first=first.applied)
    gradient, metrics = gradient_of_one(loss, field, index, agent.step_counts, grad=grad)
    return applications.as_network(field, gradient), metrics
