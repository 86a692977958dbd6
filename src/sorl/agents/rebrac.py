"""ReBRAC: a deterministic actor and a critic, both kept near the data."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import DeterministicActor, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared.critics import critic_and_average
from sorl.agents.shared.published import DISCOUNT, Published, rows
from sorl.agents.shared.schedules import every, no_metrics
from sorl.data.transitions import Transition
from sorl.functional import optimisation, td, verifiers
from sorl.networks import CriticEnsemble, GaussianNetwork


Metrics = dict[str, Float[Array, ""]]


class RebracState(eqx.Module):
    """Everything that training changes for one seed."""

    actor: GaussianNetwork
    target_actor: GaussianNetwork
    """Moving average of `actor`: gives the next action in the TD target."""
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: evaluates the next action in the TD target."""
    actor_optimiser: PyTree
    critic_optimiser: PyTree
    policy_metrics: dict[str, Float[Array, "*seeds"]]
    """Metrics of the actor's last step, logged again until its next step."""


class RebracDraws(eqx.Module):
    """The random draws of one update that belong to one seed."""

    target_noise: Float[Array, "*seeds batch action"]
    """Standard normal noise on the next actions, which smooths the TD target."""


class RebracSharedDraws(eqx.Module):
    """The inputs of one update that are the same for all seeds."""

    step: Int[Array, ""]
    """Number of earlier updates; it decides whether the actor is updated."""


class Rebrac(AbstractAgent):
    """Revisited BRAC: TD3+BC with separate behaviour-cloning penalties in the actor's loss and in the TD target.

    The deterministic policy is pi(x) = tanh(f(x)): an action takes one forward pass, and the policy is unimodal.
    Source: Tarasov et al., "Revisiting the Minimalist Approach to Offline Reinforcement Learning" (2023); settings of
    the FQL paper (Park et al., 2025).

    - critic: (Q(x, a) - r - discount * (agg Qbar(x', a') - critic_cloning_coefficient * |a' - a'_data|^2))^2,
      where a' = clip(pibar(x') + clip(target_noise * z, +-target_noise_limit), +-1), z normal noise, a'_data the logged
      action at x', bars are moving averages, and discount is gamma^n, 0 where the episode terminated within the window
    - actor: -q_coefficient * mean Q / mean |Q| + actor_cloning_coefficient * |pi(x) - a|^2, Q = agg Q(x, pi(x))

    One update: a critic step; at every `policy_interval`-th update also an actor step, which uses the new critic, and
    both moving averages. Logged: `critic_loss`, `q_mean`, `target_q_mean`, `critic_grad_norm`, and, from the actor's
    last step (0 before its first), `policy_loss`, `q_loss`, `cloning_loss`, `policy_q_mean`, `policy_grad_norm`.

    Differences from the original: activations are GELU; the actor's moving average takes the actor after its step
    (there: from before it); the logged critic loss is the mean over the heads (there: their sum); the weight of the Q
    loss can be changed (0 is behaviour cloning). As in the original, the actor does not change between its updates,
    unless `momentum_between_turns` is set.

    Differences from the FQL paper's code: there, one Adam optimises all networks, so that an actor step uses the critic
    from before the update (here: the new one), and moving averages use the networks from before the update.
    """

    metric_descriptions = {
        "cloning_loss": "squared distance of the policy's actions to the logged ones, summed over action dimensions",
        "policy_q_mean": "mean over the batch of the heads' aggregate Q, for the policy's own actions",
    }
    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (81, 26, 22, 2, 0, 91, 12, 41),
            # antsoccer's values are from table 7 (offline to online).
            actor_cloning_coefficient=[0.003, 0.003, 0.01, 0.01, 0.01, 1.0, 0.1, 0.1],
            critic_cloning_coefficient=[0.01, 0.01, 0.01, 0.01, 0.01, 0.0, 0.0, 0.01],
            discount=DISCOUNT,
            momentum_between_turns=True,  # the FQL paper's code
        )
    )
    # The quickstart was measured with the original's actor.
    quickstart = {"momentum_between_turns": False}

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the actor's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="min")
    """How the critic heads' values are aggregated in the TD target and in the actor's loss."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    policy_interval: int = eqx.field(static=True, default=2)
    """Number of critic updates per update of the actor and of the moving averages."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for actor and critic."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online network that enters its moving average at each of the actor's updates."""
    actor_cloning_coefficient: float = 0.01
    """Weight of the squared distance to the logged action in the actor's loss."""
    critic_cloning_coefficient: float = 0.01
    """Weight of the squared distance to the logged next action in the TD target."""
    q_coefficient: float = 1.0
    """Weight of the actor's Q loss; 0 is behaviour cloning."""
    target_noise: float = 0.2
    """Standard deviation of the noise on next actions in the TD target."""
    target_noise_limit: float = 0.5
    """Largest absolute value of the noise on next actions."""
    momentum_between_turns: bool = eqx.field(static=True, default=False)
    """Whether Adam also steps the actor, with a zero gradient, in the updates that skip the actor.

    The FQL paper's code does this, because its one Adam optimises all networks. With `policy_interval` 2 it acts like a
    learning rate that is sqrt(2) times higher: the momentum halves, the root of the second moment falls by sqrt(2), and
    there are two steps. So the published 3e-4 corresponds to about 4.2e-4 without these steps.
    """

    @property
    def values_may_be_lower(self) -> bool:
        """As in `AbstractAgent`: by the critic's cloning term."""
        return True

    @property
    def actor(self) -> DeterministicActor:
        """The policy's action."""
        return actor_of(DeterministicActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> RebracState:
        """Fresh networks, moving averages equal to them, and new optimiser states."""
        actor_key, critic_key = jax.random.split(key)
        actor = GaussianNetwork(observation_size, action_size, self.hidden_sizes, tanh_mean=True, key=actor_key)
        critic, target_critic = critic_and_average(self, observation_size, action_size, key=critic_key)
        return RebracState(
            actor=actor,
            target_actor=jax.tree.map(jnp.copy, actor),  # one buffer twice in a state could not be donated
            critic=critic,
            target_critic=target_critic,
            actor_optimiser=optimisation.init(actor),
            critic_optimiser=optimisation.init(critic),
            policy_metrics=no_metrics("policy_loss", "q_loss", "cloning_loss", "policy_q_mean", "policy_grad_norm"),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> RebracDraws:
        """Noise of one update."""
        return RebracDraws(jax.random.normal(key, (batch_size, action_size), jnp.float32))

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> RebracSharedDraws:
        """The number of earlier updates."""
        return RebracSharedDraws(step)

    def update(
        self, state: RebracState, batch: Transition, draws: RebracDraws, shared: RebracSharedDraws
    ) -> tuple[RebracState, Metrics]:
        """One critic step, and, if it is due, one actor step with the moving averages."""
        gradient, metrics = jax.grad(self._critic_loss, has_aux=True)(state.critic, state, batch, draws)
        critic, critic_optimiser, metrics["critic_grad_norm"] = optimisation.step(
            gradient, state.critic_optimiser, state.critic, learning_rate=self.learning_rate
        )
        state = eqx.tree_at(lambda s: (s.critic, s.critic_optimiser), state, (critic, critic_optimiser))
        state = every(
            self.policy_interval,
            shared.step,
            lambda s: self._actor_step(s, batch),
            state,
            otherwise=lambda s: self._actor_momentum_step(s) if self.momentum_between_turns else s,
        )
        return state, metrics | state.policy_metrics

    def losses(self, state: RebracState, batch: Transition, draws: RebracDraws, shared: RebracSharedDraws) -> Metrics:
        """Every loss at the current parameters, without an update."""
        _, critic_metrics = self._critic_loss(state.critic, state, batch, draws)
        _, policy_metrics = self._actor_loss(state.actor, state.critic, batch)
        return critic_metrics | policy_metrics

    def policy(self, state: RebracState) -> GaussianNetwork:
        """The actor."""
        return state.actor

    def _critic_loss(
        self, critic: CriticEnsemble, state: RebracState, batch: Transition, draws: RebracDraws
    ) -> tuple[Float[Array, ""], Metrics]:
        limit = self.target_noise_limit
        noise = jnp.clip(self.target_noise * draws.target_noise, -limit, limit)
        next_action = jnp.clip(jax.vmap(state.target_actor.mean)(batch.next_observation) + noise, -1.0, 1.0)
        distance = jnp.sum((next_action - batch.next_action) ** 2, axis=-1)
        next_q = jax.vmap(state.target_critic)(batch.next_observation, next_action)
        target = td.td_target(
            batch.reward,
            batch.discount,
            next_q - self.critic_cloning_coefficient * distance[:, None],
            aggregation=self.q_aggregation,
        )
        q = jax.vmap(critic)(batch.observation, batch.action)
        loss = td.td_loss(q, target)
        return loss, {"critic_loss": loss, "q_mean": jnp.mean(q), "target_q_mean": jnp.mean(target)}

    def _actor_loss(
        self, actor: GaussianNetwork, critic: CriticEnsemble, batch: Transition
    ) -> tuple[Float[Array, ""], Metrics]:
        action = jax.vmap(actor.mean)(batch.observation)
        q = verifiers.aggregate(jax.vmap(critic)(batch.observation, action), self.q_aggregation)
        q_loss = td.policy_q_loss(q[:, None])
        cloning_loss = jnp.mean(jnp.sum((action - batch.action) ** 2, axis=-1))
        loss = self.q_coefficient * q_loss + self.actor_cloning_coefficient * cloning_loss
        metrics = {"policy_loss": loss, "q_loss": q_loss, "cloning_loss": cloning_loss, "policy_q_mean": jnp.mean(q)}
        return loss, metrics

    def _actor_step(self, state: RebracState, batch: Transition) -> RebracState:
        gradient, metrics = jax.grad(self._actor_loss, has_aux=True)(state.actor, state.critic, batch)
        actor, actor_optimiser, metrics["policy_grad_norm"] = optimisation.step(
            gradient, state.actor_optimiser, state.actor, learning_rate=self.learning_rate
        )
        rate: Any = self.target_rate
        return RebracState(
            actor=actor,
            target_actor=optimisation.moving_average(actor, state.target_actor, rate),
            critic=state.critic,
            target_critic=optimisation.moving_average(state.critic, state.target_critic, rate),
            actor_optimiser=actor_optimiser,
            critic_optimiser=state.critic_optimiser,
            policy_metrics=metrics,
        )

    def _actor_momentum_step(self, state: RebracState) -> RebracState:
        """Adam's step with a zero gradient: only momentum moves the actor."""
        no_gradient = jax.tree.map(jnp.zeros_like, state.actor)
        actor, actor_optimiser, _ = optimisation.step(
            no_gradient, state.actor_optimiser, state.actor, learning_rate=self.learning_rate
        )
        return eqx.tree_at(lambda s: (s.actor, s.actor_optimiser), state, (actor, actor_optimiser))
