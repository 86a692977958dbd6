"""FQL: a flow clones the data; a one-step policy is distilled from it and maximises Q."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import GeneratorAndCritic, OneStepActor, actor_of
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
from sorl.functional.means import mean_over
from sorl.networks import CriticEnsemble, OneStepField, VelocityField


class FqlState(eqx.Module):
    """Everything that training changes for one seed."""

    field: VelocityField
    """The flow, which clones the data and teaches the one-step policy."""
    one_step: OneStepField
    """The policy that acts."""
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: evaluates the next action in the TD target."""
    policy_optimiser: PyTree
    """The optimiser of `field` and `one_step` together; no loss trains both."""
    critic_optimiser: PyTree


class Fql(AbstractAgent):
    """Flow Q-learning (Park et al., "Flow Q-Learning", 2025).

    A flow policy v clones the data and uses no rewards. The policy that acts, mu, gives its action in one forward pass;
    it is trained to imitate the flow's integration F_v from the same noise z and to maximise Q. So the gradient of Q
    does not pass through the integration, and an action costs one forward pass.

    - critic: (Q(x, a) - r - discount * agg Qbar(x', clip mu(x', z')))^2, discount being gamma^n, 0 where the episode
      terminated within the window
    - flow: |v(a^t, t | x) - (a - a^0)|^2, with a^t = (1 - t) a^0 + t a, t uniform on [0, 1)
    - one step: alpha |mu(x, z) - stopgrad F_v(x, z)|^2 - mean Q(x, clip mu(x, z)), alpha = `distillation_coefficient`

    Losses are means over the batch, the heads and the numbers of a vector. Rows whose chunk crosses the end of its
    trajectory are left out, except from the loss of the one-step policy, which needs no logged action.

    One update: a critic step; a step of flow and one-step policy, whose Q loss uses the new critic; the moving average
    of the critic. Logged: `critic_loss`, `q_mean`, `target_q_mean`, `flow_matching_loss`, `distillation_loss`,
    `q_loss`, `policy_loss`, `policy_q_mean`, `critic_grad_norm`, `policy_grad_norm`.

    Differences from the authors' code: it makes one step on the sum of all losses, so that its Q loss uses the critic
    from before the update; its moving average uses the critic from before the update, so that it lags one update
    behind; it always acts with one candidate, where this agent can also act with best of N.
    """

    metric_descriptions = {
        "distillation_loss": "squared difference of the one-step policy's actions and the flow's, from the same noise",
    }
    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (79, 9, 58, 4, 60, 96, 29, 56),
            distillation_coefficient=[10.0, 10.0, 30.0, 30.0, 10.0, 300.0, 300.0, 300.0],
            discount=DISCOUNT,
            q_aggregation=AGGREGATION,
        )
    )

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the hidden layers of the flow and of the one-step policy, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    flow_steps: int = eqx.field(static=True, default=10)
    """Number of Euler steps of the flow whose result the one-step policy imitates."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="mean")
    """How the critic heads' values are aggregated in the TD target and in best-of-N."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    chunk: int = eqx.field(static=True, default=1)
    """Length h of action chunks: the policy gives h actions at once, executed open-loop; Q values the whole chunk."""
    normalise_q: bool = eqx.field(static=True, default=False)
    """Whether the Q loss is divided by the mean absolute Q, which makes it independent of the scale of the rewards."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for all networks."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online critic that enters its moving average at each update."""
    distillation_coefficient: float = 10.0
    """alpha, weight of the distillation loss: large values stay near the data, small ones follow the critic."""

    @property
    def actor(self) -> OneStepActor:
        """One pass of the one-step policy; the critic chooses among several candidates."""
        return actor_of(OneStepActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> FqlState:
        """Fresh networks, the target equal to the critic, and new optimiser states."""
        field_key, one_step_key, critic_key = jax.random.split(key, 3)
        field = VelocityField(observation_size, action_size, self.hidden_sizes, key=field_key)
        one_step = OneStepField(observation_size, action_size, self.hidden_sizes, key=one_step_key)
        critic, target_critic = critic_and_average(self, observation_size, action_size, key=critic_key)
        return FqlState(
            field=field,
            one_step=one_step,
            critic=critic,
            target_critic=target_critic,
            policy_optimiser=optimisation.init((field, one_step)),
            critic_optimiser=optimisation.init(critic),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> FlowActorCriticDraws:
        """Noise and times of one update for a batch of `batch_size` transitions."""
        return draw_flow_actor_critic(batch_size, action_size, key=key)

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[()]:
        """Empty: the seeds share no random draws."""
        return ()

    def update(
        self, state: FqlState, batch: Transition, draws: FlowActorCriticDraws, shared: tuple[()]
    ) -> tuple[FqlState, Metrics]:
        """One critic step, one step of flow and one-step policy, and the moving average, in this order."""
        gradient, critic_metrics = jax.grad(self._critic_loss, has_aux=True)(state.critic, state, batch, draws)
        critic, critic_optimiser, critic_norm = optimisation.step(
            gradient, state.critic_optimiser, state.critic, learning_rate=self.learning_rate
        )
        networks = state.field, state.one_step
        gradient, policy_metrics = jax.grad(self._policy_loss, has_aux=True)(networks, critic, batch, draws)
        (field, one_step), policy_optimiser, policy_norm = optimisation.step(
            gradient, state.policy_optimiser, networks, learning_rate=self.learning_rate
        )
        after = FqlState(
            field=field,
            one_step=one_step,
            critic=critic,
            target_critic=optimisation.moving_average(critic, state.target_critic, self.target_rate),
            policy_optimiser=policy_optimiser,
            critic_optimiser=critic_optimiser,
        )
        norms = {"critic_grad_norm": critic_norm, "policy_grad_norm": policy_norm}
        return after, critic_metrics | policy_metrics | norms

    def losses(self, state: FqlState, batch: Transition, draws: FlowActorCriticDraws, shared: tuple[()]) -> Metrics:
        """Every loss at the current parameters, without an update."""
        _, critic_metrics = self._critic_loss(state.critic, state, batch, draws)
        _, policy_metrics = self._policy_loss((state.field, state.one_step), state.critic, batch, draws)
        return critic_metrics | policy_metrics

    def policy(self, state: FqlState) -> GeneratorAndCritic:
        """The one-step policy and the critic."""
        return GeneratorAndCritic(state.one_step, state.critic)

    def _critic_loss(self, critic: CriticEnsemble, state: FqlState, batch: Transition, draws: FlowActorCriticDraws):
        next_action = jnp.clip(jax.vmap(state.one_step)(batch.next_observation, draws.target_noise), -1.0, 1.0)
        return td_loss(critic, state.target_critic, batch, next_action, aggregation=self.q_aggregation)

    def _policy_loss(
        self,
        networks: tuple[VelocityField, OneStepField],
        critic: CriticEnsemble,
        batch: Transition,
        draws: FlowActorCriticDraws,
    ) -> tuple[Float[Array, ""], Metrics]:
        field, one_step = networks
        flow_matching = mean_over(flow_matching_errors(field, batch, draws.flow), batch.valid)
        teacher: Any = jax.lax.stop_gradient(field)
        taught = flow_actions(teacher, batch.observation, draws.policy_noise, self.flow_steps)
        action = jax.vmap(one_step)(batch.observation, draws.policy_noise)
        distillation = jnp.mean((action - taught) ** 2)
        q = jax.vmap(critic)(batch.observation, jnp.clip(action, -1.0, 1.0))
        q_loss = td.policy_q_loss(q, normalised=self.normalise_q)
        loss = flow_matching + self.distillation_coefficient * distillation + q_loss
        return loss, {
            "flow_matching_loss": flow_matching,
            "distillation_loss": distillation,
            "q_loss": q_loss,
            "policy_loss": loss,
            "policy_q_mean": jnp.mean(q),
        }
