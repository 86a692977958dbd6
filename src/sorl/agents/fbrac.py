"""FBRAC: a flow policy that clones the data and maximises Q by backpropagation through its integration steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import FlowActor, GeneratorAndCritic, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared.critics import critic_and_average
from sorl.agents.shared.flow_agent import (
    FlowActorCriticDraws,
    Metrics,
    draw_flow_actor_critic,
    flow_actions,
    flow_matching_errors,
    td_loss,
)
from sorl.agents.shared.published import AGGREGATION, DISCOUNT, Published, rows
from sorl.data.transitions import Transition
from sorl.functional import optimisation, td, verifiers
from sorl.networks import CriticEnsemble, VelocityField


class FbracState(eqx.Module):
    """Everything that training changes for one seed."""

    field: VelocityField
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: evaluates the next action in the TD target."""
    policy_optimiser: PyTree
    critic_optimiser: PyTree


class Fbrac(AbstractAgent):
    """Flow behaviour-regularised actor-critic: diffusion Q-learning (Wang et al., 2023) with a flow.

    One flow v both clones the data and acts. Its action F_v(x, z), after `flow_steps` Euler steps from noise z, is
    trained to maximise Q, with the gradient through every step. Source: the FQL paper (Park et al., 2025), which
    proposes it as a baseline.

    - critic: (Q(x, a) - r - discount * agg Qbar(x', F_v(x', z')))^2, discount being gamma^n, 0 where the episode
      terminated within the window
    - policy: alpha |v(a^t, t | x) - (a - a^0)|^2 - mean Q(x, F_v(x, z)), with a^t = (1 - t) a^0 + t a, t uniform on
      [0, 1), and alpha = `flow_matching_coefficient`

    Losses are means over the batch, the heads and the numbers of a vector.

    One update: a critic step; a policy step, whose Q loss uses the new critic; the moving average of the critic.
    Logged: `critic_loss`, `q_mean`, `target_q_mean`, `flow_matching_loss`, `q_loss`, `policy_loss`, `policy_q_mean`,
    `critic_grad_norm`, `policy_grad_norm`.

    Differences from diffusion Q-learning: a straight flow instead of diffusion; no moving average of the policy; the Q
    loss is normalised only if `normalise_q` is set; the default budget has one candidate, and best of N is optional.
    """

    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (60, 4, 38, 2, 16, 79, 15, 45),
            # antsoccer's value is not known; this is that of antmaze-giant, the nearest in size.
            flow_matching_coefficient=[3.0, 10.0, 30.0, 30.0, 10.0, 100.0, 100.0, 100.0],
            discount=DISCOUNT,
            q_aggregation=AGGREGATION,
        )
    )

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the flow's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    flow_steps: int = eqx.field(static=True, default=10)
    """Number of Euler steps of the policy in training; the Q loss backpropagates through all of them."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="mean")
    """How the critic heads' values are aggregated in the TD target and in best-of-N."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    normalise_q: bool = eqx.field(static=True, default=False)
    """Whether the Q loss is divided by the mean absolute Q, which makes it independent of the scale of the rewards."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for policy and critic."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online critic that enters its moving average at each update."""
    flow_matching_coefficient: float = 10.0
    """alpha, weight of the flow-matching loss: large values stay near the data, small ones follow the critic."""

    @property
    def actor(self) -> FlowActor:
        """Euler steps of the flow; the critic chooses among several candidates."""
        return actor_of(FlowActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> FbracState:
        """Fresh networks, the target equal to the critic, and new optimiser states."""
        field_key, critic_key = jax.random.split(key)
        field = VelocityField(observation_size, action_size, self.hidden_sizes, key=field_key)
        critic, target_critic = critic_and_average(self, observation_size, action_size, key=critic_key)
        return FbracState(
            field=field,
            critic=critic,
            target_critic=target_critic,
            policy_optimiser=optimisation.init(field),
            critic_optimiser=optimisation.init(critic),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> FlowActorCriticDraws:
        """Noise and times of one update for a batch of `batch_size` transitions."""
        return draw_flow_actor_critic(batch_size, action_size, key=key)

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[()]:
        """Empty: the seeds share no random draws."""
        return ()

    def update(
        self, state: FbracState, batch: Transition, draws: FlowActorCriticDraws, shared: tuple[()]
    ) -> tuple[FbracState, Metrics]:
        """One critic step, one policy step, and the moving average, in this order."""
        gradient, critic_metrics = jax.grad(self._critic_loss, has_aux=True)(state.critic, state, batch, draws)
        critic, critic_optimiser, critic_norm = optimisation.step(
            gradient, state.critic_optimiser, state.critic, learning_rate=self.learning_rate
        )
        gradient, policy_metrics = jax.grad(self._policy_loss, has_aux=True)(state.field, critic, batch, draws)
        field, policy_optimiser, policy_norm = optimisation.step(
            gradient, state.policy_optimiser, state.field, learning_rate=self.learning_rate
        )
        after = FbracState(
            field=field,
            critic=critic,
            target_critic=optimisation.moving_average(critic, state.target_critic, self.target_rate),
            policy_optimiser=policy_optimiser,
            critic_optimiser=critic_optimiser,
        )
        norms = {"critic_grad_norm": critic_norm, "policy_grad_norm": policy_norm}
        return after, critic_metrics | policy_metrics | norms

    def losses(self, state: FbracState, batch: Transition, draws: FlowActorCriticDraws, shared: tuple[()]) -> Metrics:
        """Every loss at the current parameters, without an update."""
        _, critic_metrics = self._critic_loss(state.critic, state, batch, draws)
        _, policy_metrics = self._policy_loss(state.field, state.critic, batch, draws)
        return critic_metrics | policy_metrics

    def policy(self, state: FbracState) -> GeneratorAndCritic:
        """The flow and the critic."""
        return GeneratorAndCritic(state.field, state.critic)

    def _critic_loss(self, critic: CriticEnsemble, state: FbracState, batch: Transition, draws: FlowActorCriticDraws):
        return td_loss(
            critic,
            state.target_critic,
            batch,
            flow_actions(state.field, batch.next_observation, draws.target_noise, self.flow_steps),
            aggregation=self.q_aggregation,
        )

    def _policy_loss(
        self, field: VelocityField, critic: CriticEnsemble, batch: Transition, draws: FlowActorCriticDraws
    ) -> tuple[Float[Array, ""], Metrics]:
        flow_matching = jnp.mean(flow_matching_errors(field, batch, draws.flow))
        action = flow_actions(field, batch.observation, draws.policy_noise, self.flow_steps)
        q = jax.vmap(critic)(batch.observation, action)
        q_loss = td.policy_q_loss(q, normalised=self.normalise_q)
        loss = self.flow_matching_coefficient * flow_matching + q_loss
        return loss, {
            "flow_matching_loss": flow_matching,
            "q_loss": q_loss,
            "policy_loss": loss,
            "policy_q_mean": jnp.mean(q),
        }
