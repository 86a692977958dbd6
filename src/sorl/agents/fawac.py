"""FAWAC: a flow policy that clones the data with weights that grow with the advantage."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import FlowActor, GeneratorAndCritic, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import implicit_values as implicit
from sorl.agents.shared.flow_agent import FlowDraws, Metrics, draw_flow, flow_actions, flow_matching_errors, td_loss
from sorl.agents.shared.published import AGGREGATION, DISCOUNT, Published, rows
from sorl.data.transitions import Transition
from sorl.functional import expectile, optimisation, verifiers
from sorl.networks import CriticEnsemble, Value, VelocityField


MEAN_EXPECTILE = 0.5
"""With this expectile, V is the mean of Q over the logged actions."""


class FawacState(eqx.Module):
    """Everything that training changes for one seed."""

    field: VelocityField
    value: Value
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: used in the TD target, in V's regression and in the advantage weights."""
    field_optimiser: PyTree
    value_optimiser: PyTree
    critic_optimiser: PyTree


class FawacDraws(eqx.Module):
    """The random draws of one update of one seed."""

    flow: FlowDraws
    target_noise: Float[Array, "*seeds batch action"]
    """Initial noise of the next actions in the TD target."""


class Fawac(AbstractAgent):
    """Flow advantage-weighted actor-critic: AWAC (Nair et al., 2020) with a flow in place of the Gaussian.

    The flow v clones the data, and the weight of each action grows with its advantage. No gradient of Q reaches the
    policy. Source: the FQL paper (Park et al., 2025), which proposes it as a baseline.

    - critic: (Q(x, a) - r - discount * agg Qbar(x', F_v(x', z')))^2, F_v being `flow_steps` Euler steps, and discount
      gamma^n, 0 where the episode terminated within the window
    - value: (agg Qbar(x, a) - V(x))^2 / 2, so that V is the mean over the logged actions
    - flow: min(exp(temperature * (agg Qbar(x, a) - V(x))), 100) |v(a^t, t | x) - (a - a^0)|^2, with
      a^t = (1 - t) a^0 + t a, t uniform on [0, 1)

    Losses are means over the batch, the heads and the numbers of a vector.

    One update: a critic step; a step of V; a flow step, weighted with the new V; the moving average of the critic.
    Logged: `critic_loss`, `q_mean`, `target_q_mean`, `value_loss`, `v_mean`, `flow_matching_loss` (unweighted),
    `policy_loss`, `advantage_weight_mean`, `critic_grad_norm`, `value_grad_norm`, `policy_grad_norm`.

    Differences from AWAC: AWAC's V is the mean of Q over the policy's own actions; here, as in public implementations
    of FAWAC (the FQL authors' own is not public), a network learns the mean over the logged actions. Advantages use the
    moving average of the critic, as V does; AWAC and those implementations use the critic itself. AWAC acts with one
    candidate; best of N is an extension.
    """

    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (6, 0, 19, 0, 12, 81, 5, 30),
            # antsoccer's value is not known; this is that of every other locomotion environment.
            temperature=[3.0, 3.0, 3.0, 3.0, 3.0, 1.0, 0.3, 0.3],
            discount=DISCOUNT,
            q_aggregation=AGGREGATION,
        )
    )

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the flow's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the hidden layers of V and of each critic head, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    flow_steps: int = eqx.field(static=True, default=10)
    """Euler steps of the policy, in the TD target and when it acts."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="mean")
    """How the critic heads' values are aggregated in targets, advantages and best-of-N."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for all networks."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online critic that enters its moving average at each update."""
    temperature: float = 3.0
    """alpha, the inverse temperature of the weights: 0 weights all actions equally, large values follow the critic."""

    @property
    def actor(self) -> FlowActor:
        """Euler steps of the flow; the critic chooses among several candidates."""
        return actor_of(FlowActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> FawacState:
        """Fresh networks, the target equal to the critic, and new optimiser states."""
        field_key, values_key = jax.random.split(key)
        field = VelocityField(observation_size, action_size, self.hidden_sizes, key=field_key)
        start = implicit.init(
            observation_size, action_size, self.critic_hidden_sizes, self.critic_heads, key=values_key
        )
        return FawacState(
            field=field,
            value=start.value,
            critic=start.critic,
            target_critic=start.target_critic,
            field_optimiser=optimisation.init(field),
            value_optimiser=start.value_optimiser,
            critic_optimiser=start.critic_optimiser,
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> FawacDraws:
        """Noise and times of one update for a batch of `batch_size` transitions."""
        flow_key, target_key = jax.random.split(key)
        return FawacDraws(
            flow=draw_flow(batch_size, action_size, key=flow_key),
            target_noise=jax.random.normal(target_key, (batch_size, action_size), jnp.float32),
        )

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[()]:
        """Empty: the seeds share no random draws."""
        return ()

    def update(
        self, state: FawacState, batch: Transition, draws: FawacDraws, shared: tuple[()]
    ) -> tuple[FawacState, Metrics]:
        """One step of the critic, one of V, one of the flow, and the moving average, in this order."""
        # The critic, towards the TD target.
        gradient, critic_metrics = jax.grad(self._critic_loss, has_aux=True)(state.critic, state, batch, draws)
        critic, critic_optimiser, critic_norm = optimisation.step(
            gradient, state.critic_optimiser, state.critic, learning_rate=self.learning_rate
        )
        # V, towards the target critic from before this update.
        q = self._target_q(state, batch)
        gradient, value_metrics = jax.grad(implicit.value_loss, has_aux=True)(state.value, batch, q, MEAN_EXPECTILE)
        value, value_optimiser, value_norm = optimisation.step(
            gradient, state.value_optimiser, state.value, learning_rate=self.learning_rate
        )
        # The flow, with weights from the new V.
        gradient, policy_metrics = jax.grad(self._policy_loss, has_aux=True)(state.field, value, batch, q, draws)
        field, field_optimiser, policy_norm = optimisation.step(
            gradient, state.field_optimiser, state.field, learning_rate=self.learning_rate
        )
        # The moving average takes the new critic.
        after = FawacState(
            field=field,
            value=value,
            critic=critic,
            target_critic=optimisation.moving_average(critic, state.target_critic, self.target_rate),
            field_optimiser=field_optimiser,
            value_optimiser=value_optimiser,
            critic_optimiser=critic_optimiser,
        )
        norms = {"critic_grad_norm": critic_norm, "value_grad_norm": value_norm, "policy_grad_norm": policy_norm}
        return after, critic_metrics | value_metrics | policy_metrics | norms

    def losses(self, state: FawacState, batch: Transition, draws: FawacDraws, shared: tuple[()]) -> Metrics:
        """Every loss at the current parameters, without an update."""
        q = self._target_q(state, batch)
        _, critic_metrics = self._critic_loss(state.critic, state, batch, draws)
        _, value_metrics = implicit.value_loss(state.value, batch, q, MEAN_EXPECTILE)
        _, policy_metrics = self._policy_loss(state.field, state.value, batch, q, draws)
        return critic_metrics | value_metrics | policy_metrics

    def policy(self, state: FawacState) -> GeneratorAndCritic:
        """The flow and the critic."""
        return GeneratorAndCritic(state.field, state.critic)

    def _target_q(self, state: FawacState, batch: Transition) -> Float[Array, " batch"]:
        q = jax.vmap(state.target_critic)(batch.observation, batch.action)
        return verifiers.aggregate(q, self.q_aggregation)

    def _critic_loss(self, critic: CriticEnsemble, state: FawacState, batch: Transition, draws: FawacDraws):
        return td_loss(
            critic,
            state.target_critic,
            batch,
            flow_actions(state.field, batch.next_observation, draws.target_noise, self.flow_steps),
            aggregation=self.q_aggregation,
        )

    def _policy_loss(
        self, field: VelocityField, value: Value, batch: Transition, q: Float[Array, " batch"], draws: FawacDraws
    ) -> tuple[Float[Array, ""], Metrics]:
        weight = expectile.advantage_weight(q - jax.vmap(value)(batch.observation), self.temperature)
        errors = flow_matching_errors(field, batch, draws.flow)
        loss = jnp.mean(weight * errors)
        return loss, {
            "flow_matching_loss": jnp.mean(errors),
            "policy_loss": loss,
            "advantage_weight_mean": jnp.mean(weight),
        }
