"""CAC: an actor-critic whose policy is a consistency model."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import ConsistencyActor, GeneratorAndCritic, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared.critics import critic_and_average
from sorl.agents.shared.published import DISCOUNT, Published, rows
from sorl.data.transitions import Transition
from sorl.functional import consistency, optimisation, td, verifiers
from sorl.networks import ConsistencyNetwork, CriticEnsemble
from sorl.system.ranges import refuse_outside


Metrics = dict[str, Float[Array, ""]]


class CacState(eqx.Module):
    """Everything that training changes for one seed."""

    network: ConsistencyNetwork
    target_network: ConsistencyNetwork
    """Moving average of `network`: the teacher of the consistency loss, and the policy in the TD target."""
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: evaluates next actions in the TD target, and candidates when acting."""
    network_optimiser: PyTree
    critic_optimiser: PyTree


class CacDraws(eqx.Module):
    """The random draws of one update that belong to one seed; the noise is standard normal."""

    consistency_noise: Float[Array, "*seeds batch action"]
    consistency_place: Float[Array, "*seeds batch"]
    """In [0, 1); selects a pair of neighbouring points on the time grid."""
    policy_noise: Float[Array, "*seeds batch steps action"]
    """Noise of the actions in the Q loss."""
    target_noise: Float[Array, "*seeds batch candidates steps action"]
    """Noise of the next actions in the TD target."""


class CacSharedDraws(eqx.Module):
    """The inputs of one update that are the same for all seeds."""

    step: Int[Array, ""]
    """Number of earlier updates; it sets how fine the time grid is."""


class Cac(AbstractAgent):
    """Consistency actor-critic: a consistency model with few sampling steps, trained to clone and to maximise Q.

    The consistency function f maps a noisy action at any time to a data action; pi(x, z) is the action after
    `sampling_steps` steps of f from noise z. The action executed is the best of `candidates` samples by agg Qbar.
    Source: Ding & Jin, "Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning" (2024),
    there called Consistency-AC; settings of the FQL paper (Park et al., 2025).

    - critic: (Q(x, a) - r - discount * agg over heads of max over i of Qbar(x', pibar(x', z_i)))^2, i from 1 to
      `backup_candidates`; bars are moving averages; discount is gamma^n, 0 where the episode terminated within the
      window
    - cloning: 100 / (t' - t) * |f(x, a + t' z, t') - fbar(x, a + t z, t)|^2 / dimensions, the second f held fixed; t <
      t' random neighbours on a grid of times that grows from 2 to 150 points
    - policy: cloning - q_coefficient * mean Q(x, pi(x, z)) / mean |Q|, Q the mean of the heads

    One update: a critic step; a policy step, which uses the new critic; both moving averages. Logged: `critic_loss`,
    `q_mean`, `target_q_mean`, `consistency_loss`, `q_loss`, `policy_loss`, `policy_q_mean`, `critic_grad_norm`,
    `policy_grad_norm`.

    Differences from the original, whose eta is `q_coefficient`: the network's input is scaled to unit variance and its
    time input is logarithmic, as in Song et al.'s consistency models (the released code does neither); the Q loss uses
    the mean of the heads (there: one of two at random, divided by the other's magnitude); the best candidate is
    executed (there: one drawn by the softmax of Q); both averages move at every update (there: the actor's at every
    fifth, after the first thousand); one schedule refines the grid (there: it restarts every 50,000 updates); the TD
    loss is the mean over the heads (there: their sum, so that its gradient is clipped at half the length); activations
    are GELU; Q has layer norm.
    """

    metric_descriptions = {
        "consistency_loss": "squared difference of the policy at neighbouring noise levels, by their distance in time",
    }
    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (33, 0, 53, 0, 2, 85, 6, 40),
            # antsoccer's value is not known; this is that of three of the four other locomotion environments.
            q_coefficient=[1.0, 1.0, 0.03, 1.0, 1.0, 0.003, 0.3, 0.3],
            discount=DISCOUNT,
        )
    )
    quickstart = {"refinement_updates": 40_000.0}

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the policy's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="min")
    """How the critic heads' values are aggregated in the TD target and in the choice among candidates."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    sampling_steps: int = eqx.field(static=True, default=2)
    """Steps from noise to action, in training and when acting (a budget can override the latter)."""
    backup_candidates: int = eqx.field(static=True, default=10)
    """Number of next actions sampled for the TD target, which uses the best of them."""
    candidates: int = eqx.field(static=True, default=50)
    """Number of actions sampled per decision, from which the critic chooses one."""
    refinement_updates: float = 1e6
    """Number of updates after which the time grid is at its finest."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for policy and critic."""
    max_grad_norm: float = 5.0
    """Gradients of each network are scaled down to this global norm."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online network that enters its moving average at each update."""
    q_coefficient: float = 1.0
    """Weight of the Q loss: small values keep the policy near the data, large ones follow the critic; 0 clones."""

    def __check_init__(self):
        refuse_outside(self, refinement_updates=(1.0, math.inf))

    @property
    def actor(self) -> ConsistencyActor:
        """Steps of the network; the critic's moving average chooses among several candidates."""
        return actor_of(ConsistencyActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> CacState:
        """Fresh networks, moving averages equal to them, and new optimiser states."""
        network_key, critic_key = jax.random.split(key)
        network = ConsistencyNetwork(observation_size, action_size, self.hidden_sizes, key=network_key)
        critic, target_critic = critic_and_average(self, observation_size, action_size, key=critic_key)
        return CacState(
            network=network,
            target_network=jax.tree.map(jnp.copy, network),  # one buffer twice in a state could not be donated
            critic=critic,
            target_critic=target_critic,
            network_optimiser=optimisation.init(network),
            critic_optimiser=optimisation.init(critic),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> CacDraws:
        """Noise and times of one update."""
        consistency_key, place_key, policy_key, target_key = jax.random.split(key, 4)
        sample_shape = (self.sampling_steps, action_size)
        backup_shape = (batch_size, self.backup_candidates, *sample_shape)
        return CacDraws(
            consistency_noise=jax.random.normal(consistency_key, (batch_size, action_size), jnp.float32),
            consistency_place=jax.random.uniform(place_key, (batch_size,), jnp.float32),
            policy_noise=jax.random.normal(policy_key, (batch_size, *sample_shape), jnp.float32),
            target_noise=jax.random.normal(target_key, backup_shape, jnp.float32),
        )

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> CacSharedDraws:
        """The number of earlier updates."""
        return CacSharedDraws(step)

    def update(
        self, state: CacState, batch: Transition, draws: CacDraws, shared: CacSharedDraws
    ) -> tuple[CacState, Metrics]:
        """One critic step, one policy step, and the moving averages, in this order."""
        rates: Any = {"learning_rate": self.learning_rate, "max_grad_norm": self.max_grad_norm}
        gradient, metrics = jax.grad(self._critic_loss, has_aux=True)(state.critic, state, batch, draws)
        critic, critic_optimiser, metrics["critic_grad_norm"] = optimisation.step(
            gradient, state.critic_optimiser, state.critic, **rates
        )
        gradient, policy_metrics = jax.grad(self._policy_loss, has_aux=True)(
            state.network, state.target_network, critic, batch, draws, shared.step
        )
        network, network_optimiser, metrics["policy_grad_norm"] = optimisation.step(
            gradient, state.network_optimiser, state.network, **rates
        )
        after = CacState(
            network=network,
            target_network=optimisation.moving_average(network, state.target_network, self.target_rate),
            critic=critic,
            target_critic=optimisation.moving_average(critic, state.target_critic, self.target_rate),
            network_optimiser=network_optimiser,
            critic_optimiser=critic_optimiser,
        )
        return after, metrics | policy_metrics

    def losses(self, state: CacState, batch: Transition, draws: CacDraws, shared: CacSharedDraws) -> Metrics:
        """Every loss at the current parameters and the current grid of times, without an update."""
        _, metrics = self._critic_loss(state.critic, state, batch, draws)
        _, policy_metrics = self._policy_loss(
            state.network, state.target_network, state.critic, batch, draws, shared.step
        )
        return metrics | policy_metrics

    def policy(self, state: CacState) -> GeneratorAndCritic:
        """The network, and the critic's moving average."""
        return GeneratorAndCritic(state.network, state.target_critic)

    def _critic_loss(
        self, critic: CriticEnsemble, state: CacState, batch: Transition, draws: CacDraws
    ) -> tuple[Float[Array, ""], Metrics]:
        def best_next_q(observation, noises):
            """The maximum over the candidates, for each head."""

            def next_q(noise):
                return state.target_critic(observation, consistency.sample(state.target_network, observation, noise))

            return jnp.max(jax.vmap(next_q)(noises), axis=0)

        target = td.td_target(
            batch.reward,
            batch.discount,
            jax.vmap(best_next_q)(batch.next_observation, draws.target_noise),
            aggregation=self.q_aggregation,
        )
        q = jax.vmap(critic)(batch.observation, batch.action)
        loss = td.td_loss(q, target)
        return loss, {"critic_loss": loss, "q_mean": jnp.mean(q), "target_q_mean": jnp.mean(target)}

    def _policy_loss(
        self,
        network: ConsistencyNetwork,
        teacher: ConsistencyNetwork,
        critic: CriticEnsemble,
        batch: Transition,
        draws: CacDraws,
        step: Int[Array, ""],
    ) -> tuple[Float[Array, ""], Metrics]:
        # The time grid gets finer with the number of updates.
        points = consistency.grid_points(step, self.refinement_updates).astype(batch.reward.dtype)

        def cloning(observation, action, noise, place):
            index = jnp.floor(place * (points - 1))
            time, next_time = consistency.grid_time(index, points), consistency.grid_time(index + 1, points)
            loss = consistency.consistency_loss(network, teacher, observation, action, noise, time, next_time)
            # The difference shrinks with the time step; this weight makes fine and coarse grids count equally.
            return 100 / (next_time - time) * loss

        def q_of(observation, noise):
            return critic(observation, consistency.sample(network, observation, noise))

        # Cloning by consistency, and the Q loss through all sampling steps.
        consistency_loss = jnp.mean(
            jax.vmap(cloning)(batch.observation, batch.action, draws.consistency_noise, draws.consistency_place)
        )
        q = jax.vmap(q_of)(batch.observation, draws.policy_noise)
        q_loss = td.policy_q_loss(q)
        loss = consistency_loss + self.q_coefficient * q_loss
        metrics = {
            "policy_loss": loss,
            "consistency_loss": consistency_loss,
            "q_loss": q_loss,
            "policy_q_mean": jnp.mean(q),
        }
        return loss, metrics
