"""The three losses of SORL on a batch, shared by `Sorl` and `SorlReleased`; each returns its value and its metrics."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from sorl.agents.shared.shortcut_agent import SorlDraws, consistency_levels
from sorl.data.transitions import Transition
from sorl.functional import shortcut, td, verifiers
from sorl.functional.means import mean_over
from sorl.networks import CriticEnsemble, ShortcutField


Metrics = dict[str, Float[Array, ""]]


def td_loss(
    critic: CriticEnsemble,
    target_critic: CriticEnsemble,
    batch: Transition,
    next_action: Float[Array, "batch action"],
    steps: Int[Array, ""] | int,
    *,
    aggregation: verifiers.Aggregation,
    stop_gradient: bool,
) -> tuple[Float[Array, ""], Metrics]:
    """The TD loss of `critic`, for the policy that made `next_action` by `steps` jumps."""
    k = jnp.asarray(steps, batch.reward.dtype)
    next_q = target_critic(batch.next_observation, next_action, k)
    target = td.td_target(batch.reward, batch.discount, next_q, aggregation=aggregation, stop_gradient=stop_gradient)
    q = critic(batch.observation, batch.action, k)
    loss = td.td_loss(q, target, batch.valid)
    q_mean, target_mean = mean_over(q, batch.valid), mean_over(target, batch.valid)
    return loss, {"critic_loss": loss, "q_mean": q_mean, "target_q_mean": target_mean}


def queries(teacher: ShortcutField, batch: Transition, draws: SorlDraws, discretization_steps: int) -> shortcut.Query:
    """The batch's flow-matching queries, then its self-consistency queries."""
    levels = jnp.asarray(consistency_levels(batch.reward.shape[0], discretization_steps), batch.reward.dtype)
    flow_matching = shortcut.flow_matching_query(
        batch.observation, batch.action, draws.flow_noise, draws.flow_time, discretization_steps
    )
    self_consistency = shortcut.self_consistency_query(
        teacher, batch.observation, batch.action, draws.consistency_noise, draws.consistency_time, levels
    )
    return jax.tree.map(lambda *rows: jnp.concatenate(rows), flow_matching, self_consistency)


def policy_gradient(
    agent: Any,
    field: ShortcutField,
    *,
    teacher: ShortcutField,
    critic: CriticEnsemble,
    batch: Transition,
    draws: SorlDraws,
    index: Int[Array, ""],
) -> tuple[PyTree, Metrics]:
    """The gradient of the whole policy loss: flow matching, self-consistency and the Q loss, each by its coefficient.

    **Arguments:** `agent`, for its coefficients and step counts; `teacher`, of self-consistency; `critic`, which the Q
    loss asks; `index` of the jump count that the Q loss backpropagates through.
    """
    asked = queries(teacher, batch, draws, agent.discretization_steps)

    def cloning_loss(field):
        # One forward for all rows, since they share the field's weights.
        errors = shortcut.query_errors(field, asked)
        flow_matching, self_consistency = _means_of_halves(errors, batch.valid)
        loss = agent.flow_matching_coefficient * flow_matching + agent.self_consistency_coefficient * self_consistency
        return loss, (loss, {"flow_matching_loss": flow_matching, "self_consistency_loss": self_consistency})

    def q_loss(field, steps: int):
        action = shortcut.sample(field, batch.observation, draws.policy_noise, steps)
        q = critic(batch.observation, action, jnp.asarray(float(steps), action.dtype))
        loss = td.policy_q_loss(q)
        return agent.q_coefficient * loss, {"q_loss": loss, "policy_q_mean": jnp.mean(q)}

    cloning_gradient, (cloning, cloning_metrics) = jax.grad(cloning_loss, has_aux=True)(field)
    q_gradient, q_metrics = gradient_of_one(q_loss, field, index, agent.step_counts)
    metrics = cloning_metrics | q_metrics | {"policy_loss": cloning + agent.q_coefficient * q_metrics["q_loss"]}
    return jax.tree.map(jnp.add, cloning_gradient, q_gradient), metrics


def _means_of_halves(errors: Float[Array, " queries"], valid: Float[Array, " batch"] | None) -> Any:
    """The means of the flow-matching and of the self-consistency errors, over the valid rows of the batch."""
    halves = errors.reshape(2, -1)
    return jnp.mean(halves, axis=1) if valid is None else (mean_over(half, valid) for half in halves)


def one_of(function: Any, argument: PyTree, index: Int[Array, ""], choices: tuple[int, ...]) -> PyTree:
    """`function(argument, k)` for k = `choices[index]`; one branch runs, however many are compiled."""
    branches = [partial(function, steps=steps) for steps in choices]
    return branches[0](argument) if len(branches) == 1 else jax.lax.switch(index, branches, argument)


def gradient_of_one(
    loss: Any, networks: PyTree, index: Int[Array, ""], choices: tuple[int, ...]
) -> tuple[PyTree, Metrics]:
    """Gradient and metrics of `loss(networks, k)` for k = `choices[index]`.

    The gradient is taken inside each branch: taken through the switch, it would keep the residuals of every branch.
    """

    return one_of(lambda networks, steps: jax.grad(loss, has_aux=True)(networks, steps), networks, index, choices)
