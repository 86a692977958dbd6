"""SORL: one shortcut policy for all budgets, trained by flow matching, self-consistency and a Q loss."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import GeneratorAndCritic, ShortcutActor, actor_of
from sorl.agents.actors.shortcut import step_counts
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import sorl_settings
from sorl.agents.shared.branches import gradient_of_one, one_of
from sorl.agents.shared.schedules import linear_decay
from sorl.agents.shared.shortcut_agent import (
    SorlDraws,
    SorlSharedDraws,
    consistency_levels,
    draw,
    draw_shared,
)
from sorl.data.transitions import Transition
from sorl.functional import optimisation, shortcut, td, verifiers
from sorl.functional.means import mean_over
from sorl.networks import CriticEnsemble, ShortcutField
from sorl.system.ranges import refuse_outside


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


class Sorl(AbstractAgent):
    """SORL by the paper's formulas: one optimiser per network, no gradient through the TD target, averages last.

    One update: (1) a critic step towards the TD target; (2) a policy step, whose Q loss uses the critic of step (1) and
    whose self-consistency teacher is the moving average from before this update; (3) both moving averages, from the
    updated networks. Source: Espinosa-Dice et al., "Scaling Offline RL via Efficient and Expressive Shortcut Models"
    (NeurIPS 2025).

    - critic: (Q(x, a, k) - r - discount * agg Qbar(x', F_k(x', z'), k))^2, F_k(x, z) the action after k jumps from
      noise z, k uniform on 1, 2, 4, .., `backprop_steps`; discount is gamma^n, 0 where the episode terminated within
      the window
    - policy, flow matching: |s(a^t, t, 1 / M | x) - (a - a^0)|^2, M = `discretization_steps`, a^t = (1 - t) a^0 + t a
      except for a small rest of noise at t = 1
    - policy, self-consistency: |s(a^t, t, d | x) - (v + v') / 2|^2 for steps d of 2 / M, 4 / M, .., 1, with v and v'
      the teacher's velocities in two steps of d / 2 from a^t
    - policy, Q loss: -mean Q(x, F_k(x, z), k) / mean |Q|, with its own draw of k and the gradient through all k jumps

    Logged: `critic_loss`, `q_mean`, `target_q_mean`, `flow_matching_loss`, `self_consistency_loss`, `q_loss`,
    `policy_loss`, `policy_q_mean`, `critic_grad_norm`, `policy_grad_norm`, and `td_policy_grad_norm` if
    `td_gradient_to_policy` is set.
    """

    published = sorl_settings.PUBLISHED
    quickstart = {
        **sorl_settings.QUICKSTART,
        "late_learning_rate": 1e-4,
        "decay_start": 30_000.0,
        "decay_end": 40_000.0,
        "act_with_average": True,
    }
    # Without an environment, one cannot see whether a policy exploits the critic's errors, so these settings keep it
    # near the data. On several kinds of logs of a simulated robot arm (`benchmarks/own_logs.py`), q_coefficient 1 was
    # as good as cloning or better, and 10 failed the task within 2,000 updates; the default was chosen on OGBench's
    # tasks. The moving average acts as well or a little better.
    own_logs = {"q_coefficient": 1.0, "act_with_average": True}

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the policy's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    discretization_steps: int = eqx.field(static=True, default=8)
    """M^disc: steps of the finest grid in training; a power of two, at least 2."""
    backprop_steps: int = eqx.field(static=True, default=8)
    """M^BTT: largest number of jumps in the Q loss's backpropagation; a power of two, <= `discretization_steps`."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="mean")
    """How the critic heads' values are aggregated in the TD target and in best-of-N."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    chunk: int = eqx.field(static=True, default=1)
    """Length h of action chunks: the policy gives h actions at once, executed open-loop; Q values the whole chunk."""
    critic_sees_steps: bool = eqx.field(static=True, default=True)
    """Whether the policy's number of jumps is an input of the critic."""
    td_gradient_to_policy: bool = eqx.field(static=True, default=False)
    """Whether the TD loss also moves the policy, through the next actions of its target (as the released code does)."""
    act_with_average: bool = eqx.field(static=True, default=False)
    """Whether to act with the field's moving average, which is less noisy at high learning rates."""
    learning_rate: float = 1e-4
    """Adam's learning rate, for policy and critic."""
    late_learning_rate: float | None = None
    """Final learning rate, reached linearly from update `decay_start` to update `decay_end`; None: no change."""
    decay_start: float = 0.0
    """Number of updates after which the learning rate begins to change."""
    decay_end: float = 1e6
    """Number of updates after which the learning rate is `late_learning_rate`."""
    max_grad_norm: float = 1.0
    """Gradients of each network are scaled down to this global norm."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online network that enters its moving average at each update."""
    flow_matching_coefficient: float = 10.0
    """Weight of the flow-matching loss."""
    self_consistency_coefficient: float = 10.0
    """Weight of the self-consistency loss."""
    q_coefficient: float = 100.0
    """Weight of the Q loss: small values keep the policy near the data, large ones follow the critic."""

    def __check_init__(self):
        refuse_outside(self, decay_end=(self.decay_start + 1, math.inf))

    @property
    def actor(self) -> ShortcutActor:
        """Jumps of the field; the critic chooses among several candidates."""
        return actor_of(ShortcutActor, self)

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The jump counts that the Q loss and the TD target draw from: 1, 2, 4, .., M^BTT."""
        return step_counts(self.backprop_steps)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlState:
        """Fresh networks, moving averages equal to them, and new optimiser states."""
        field_key, critic_key = jax.random.split(key)
        field: Any = ShortcutField(observation_size, action_size, self.hidden_sizes, key=field_key)
        critic: Any = CriticEnsemble(
            observation_size,
            action_size,
            self.critic_hidden_sizes,
            heads=self.critic_heads,
            sees_steps=self.critic_sees_steps,
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

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlDraws:
        """Noise and times of one update for a batch of `batch_size` transitions."""
        return draw(batch_size, action_size, self.discretization_steps, key=key)

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> SorlSharedDraws:
        """One jump count for the Q loss and one for the TD target, uniform over `step_counts`."""
        return draw_shared(self.backprop_steps, key=key)

    def update(
        self, state: SorlState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> tuple[SorlState, Metrics]:
        """One critic step, one policy step, and the moving averages, in this order."""
        learning_rate = self._learning_rate(state.critic_optimiser.count)
        rates: Any = {"learning_rate": learning_rate, "max_grad_norm": self.max_grad_norm}
        # (1) The critic, towards the TD target.
        critic_gradient, td_gradient, critic_metrics = self._critic_gradient(state, batch, draws, shared.target_steps)
        critic, critic_optimiser, critic_norm = optimisation.step(
            critic_gradient, state.critic_optimiser, state.critic, **rates
        )

        # (2) The policy: flow matching, self-consistency, and the Q loss with the new critic.
        gradient, policy_metrics = policy_gradient(
            self, state.field, state.target_field, critic, batch, draws, shared.policy_steps
        )
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
            target_field=optimisation.moving_average(field, state.target_field, self.target_rate),
            critic=critic,
            target_critic=optimisation.moving_average(critic, state.target_critic, self.target_rate),
            field_optimiser=field_optimiser,
            critic_optimiser=critic_optimiser,
        )
        return after, metrics

    def losses(self, state: SorlState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws) -> Metrics:
        """Every loss at the current parameters, without an update."""
        _, _, critic_metrics = self._critic_gradient(state, batch, draws, shared.target_steps)
        _, policy_metrics = policy_gradient(
            self, state.field, state.target_field, state.critic, batch, draws, shared.policy_steps
        )
        return critic_metrics | policy_metrics

    def policy(self, state: SorlState) -> GeneratorAndCritic:
        """The field (its moving average if `act_with_average` is set) and the critic."""
        return GeneratorAndCritic(state.target_field if self.act_with_average else state.field, state.critic)

    def _learning_rate(self, step: Int[Array, "*seeds"]):
        if self.late_learning_rate is None:
            return self.learning_rate
        return linear_decay(self.learning_rate, self.late_learning_rate, step, self.decay_start, self.decay_end)

    def _critic_gradient(self, state: SorlState, batch: Transition, draws: SorlDraws, index: Int[Array, ""]):
        """The gradient of the TD loss for the critic, and for the policy if `td_gradient_to_policy` is set."""

        def next_action(field, steps: int):
            return shortcut.sample(field, batch.next_observation, draws.target_noise, steps)

        def loss(critic, action, steps):
            return td_loss(
                critic,
                state.target_critic,
                batch,
                action,
                steps,
                aggregation=self.q_aggregation,
                stop_gradient=not self.td_gradient_to_policy,
            )

        # With a gradient to the policy, the whole loss is differentiated in the branch of the drawn jump count.
        if self.td_gradient_to_policy:
            (critic_gradient, td_gradient), metrics = gradient_of_one(
                lambda networks, steps: loss(networks[0], next_action(networks[1], steps), steps),
                (state.critic, state.field),
                index,
                self.step_counts,
            )
            return critic_gradient, td_gradient, metrics
        # Else only the action is computed in a branch, so that the critic's part is compiled once for all jump counts.
        action = one_of(next_action, state.field, index, self.step_counts)
        steps = jnp.asarray(self.step_counts, jnp.int32)[index]
        critic_gradient, metrics = jax.grad(loss, has_aux=True)(state.critic, action, steps)
        return critic_gradient, None, metrics


# The losses, in the order of the docstring of `Sorl`. `SorlReleased` uses the same losses in another update.


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
    """The TD loss of `critic`, for a policy whose `next_action` took `steps` jumps."""
    k = jnp.asarray(steps, batch.reward.dtype)
    next_q = target_critic(batch.next_observation, next_action, k)
    target = td.td_target(batch.reward, batch.discount, next_q, aggregation=aggregation, stop_gradient=stop_gradient)
    q = critic(batch.observation, batch.action, k)
    loss = td.td_loss(q, target, batch.valid)
    q_mean, target_mean = mean_over(q, batch.valid), mean_over(target, batch.valid)
    return loss, {"critic_loss": loss, "q_mean": q_mean, "target_q_mean": target_mean}


def cloning_losses(
    field: ShortcutField, teacher: ShortcutField, batch: Transition, draws: SorlDraws, discretization_steps: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The flow-matching loss and the self-consistency loss of `field`, over the valid rows of the batch."""
    flow_matching = shortcut.flow_matching_query(
        batch.observation, batch.action, draws.flow_noise, draws.flow_time, discretization_steps
    )
    levels = jnp.asarray(consistency_levels(len(batch.reward), discretization_steps), batch.reward.dtype)
    self_consistency = shortcut.self_consistency_query(
        teacher, batch.observation, batch.action, draws.consistency_noise, draws.consistency_time, levels
    )
    # One forward pass for the rows of both losses, because both evaluate the same field.
    queries = jax.tree.map(lambda *rows: jnp.concatenate(rows), flow_matching, self_consistency)
    halves = shortcut.query_errors(field, queries).reshape(2, -1)
    if batch.valid is None:
        first, second = jnp.mean(halves, axis=1)
        return first, second
    return mean_over(halves[0], batch.valid), mean_over(halves[1], batch.valid)


def q_loss(
    field: ShortcutField,
    critic: CriticEnsemble,
    observation: Float[Array, "batch observation"],
    noise: Float[Array, "batch action"],
    steps: int,
) -> tuple[Float[Array, ""], Metrics]:
    """-mean Q(x, F_k(x, z), k) / mean |Q|, for k = `steps` jumps from the noise z."""
    action = shortcut.sample(field, observation, noise, steps)
    q = critic(observation, action, jnp.asarray(float(steps), action.dtype))
    loss = td.policy_q_loss(q)
    return loss, {"q_loss": loss, "policy_q_mean": jnp.mean(q)}


def policy_gradient(
    agent: Any,
    field: ShortcutField,
    teacher: ShortcutField,
    critic: CriticEnsemble,
    batch: Transition,
    draws: SorlDraws,
    index: Int[Array, ""],
) -> tuple[PyTree, Metrics]:
    """The gradient of the policy's loss: flow matching + self-consistency + Q loss, each times its coefficient.

    **Arguments:** `agent`, for its coefficients and step counts; `teacher`, the field that gives the self-consistency
    targets; `critic`, the critic of the Q loss; `index` in `agent.step_counts` of the jump count of the Q loss.
    """

    def cloning_loss(field):
        flow_matching, self_consistency = cloning_losses(field, teacher, batch, draws, agent.discretization_steps)
        loss = agent.flow_matching_coefficient * flow_matching + agent.self_consistency_coefficient * self_consistency
        return loss, (loss, {"flow_matching_loss": flow_matching, "self_consistency_loss": self_consistency})

    def weighted_q_loss(field, steps: int):
        loss, metrics = q_loss(field, critic, batch.observation, draws.policy_noise, steps)
        return agent.q_coefficient * loss, metrics

    # Two gradients are added, so that only the Q loss runs in the branch of the drawn jump count.
    cloning_gradient, (cloning, metrics) = jax.grad(cloning_loss, has_aux=True)(field)
    q_gradient, q_metrics = gradient_of_one(weighted_q_loss, field, index, agent.step_counts)
    metrics |= q_metrics | {"policy_loss": cloning + agent.q_coefficient * q_metrics["q_loss"]}
    return jax.tree.map(jnp.add, cloning_gradient, q_gradient), metrics
