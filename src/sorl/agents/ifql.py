"""IFQL: a flow clones the data, IQL learns the values, and the policy acts with the best of N by Q."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import FlowActor, GeneratorAndCritic, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import implicit_values as implicit
from sorl.agents.shared.flow_agent import FlowDraws, Metrics, draw_flow, flow_matching_errors
from sorl.agents.shared.published import DISCOUNT, Published, rows
from sorl.data.transitions import Transition
from sorl.functional import optimisation, verifiers
from sorl.functional.means import mean_over
from sorl.networks import VelocityField


class IfqlState(eqx.Module):
    """Everything that training changes for one seed."""

    field: VelocityField
    field_optimiser: PyTree
    values: implicit.ImplicitValues


class Ifql(AbstractAgent):
    """Implicit flow Q-learning: IDQL (Hansen-Estruch et al., 2023) with a flow in place of the diffusion model.

    The flow v clones the data, and the values are IQL's (Kostrikov et al., 2022); neither depends on the other in
    training. To act, it samples `candidates` actions of the flow and takes the one with the highest Q. Source: the FQL
    paper (Park et al., 2025), which proposes it as a baseline.

    - value: |expectile - 1(Qbar < V)| (agg Qbar(x, a) - V(x))^2
    - critic: (Q(x, a) - r - discount * V(x'))^2, discount being gamma^n, 0 where the episode terminated within the
      window
    - flow: |v(a^t, t | x) - (a - a^0)|^2, with a^t = (1 - t) a^0 + t a, t uniform on [0, 1)

    Losses are means over the batch, the heads and the numbers of a vector. Rows whose chunk crosses the end of its
    trajectory are left out.

    One update: a step of V; a critic step with the new V in its target; a step of the flow; the moving average of the
    critic. Logged: `value_loss`, `v_mean`, `critic_loss`, `q_mean`, `target_q_mean`, `flow_matching_loss`,
    `value_grad_norm`, `critic_grad_norm`, `policy_grad_norm`.

    Differences from IDQL: a straight flow instead of diffusion, plain perceptrons instead of residual blocks; the best
    candidate is executed, not one drawn by its weight. Differences from the FQL authors' code: there, V and the critic
    step together, each with the other's old parameters; the moving average uses the critic from before the update; the
    logged critic loss is the sum over the two heads (here: their mean, which is half of it).
    """

    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (28, 3, 60, 11, 33, 79, 14, 30),
            candidates=[32, 32, 32, 32, 64, 32, 32, 32],  # antsoccer's value is from table 7
            discount=DISCOUNT,
        )
    )

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the flow's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the hidden layers of V and of each critic head, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    flow_steps: int = eqx.field(static=True, default=10)
    """Euler steps of the flow when it acts."""
    candidates: int = eqx.field(static=True, default=32)
    """N of best-of-N; a budget can override it."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="min")
    """How the critic heads' values are aggregated for V's target and in best-of-N (the FQL authors' code: min)."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    chunk: int = eqx.field(static=True, default=1)
    """Length h of action chunks: the policy gives h actions at once, executed open-loop; Q values the whole chunk."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for all networks."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online critic that enters its moving average at each update."""
    expectile: float = 0.9
    """The expectile of Q over the logged actions that V learns: 0.5 is the mean, near 1 the maximum."""

    @property
    def actor(self) -> FlowActor:
        """Euler steps of the flow; the critic chooses among several candidates."""
        return actor_of(FlowActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> IfqlState:
        """Fresh networks, the target equal to the critic, and new optimiser states."""
        field_key, values_key = jax.random.split(key)
        field = VelocityField(observation_size, action_size, self.hidden_sizes, key=field_key)
        return IfqlState(
            field=field,
            field_optimiser=optimisation.init(field),
            values=implicit.init(
                observation_size, action_size, self.critic_hidden_sizes, self.critic_heads, key=values_key
            ),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> FlowDraws:
        """Noise and times of flow matching for a batch of `batch_size` transitions."""
        return draw_flow(batch_size, action_size, key=key)

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[()]:
        """Empty: the seeds share no random draws."""
        return ()

    def update(
        self, state: IfqlState, batch: Transition, draws: FlowDraws, shared: tuple[()]
    ) -> tuple[IfqlState, Metrics]:
        """One step of V, one of the critic, one of the flow, and the moving average."""
        values, value_metrics = implicit.step(
            state.values,
            batch,
            implicit.target_q(state.values, batch, self.q_aggregation),
            expectile=self.expectile,
            learning_rate=self.learning_rate,
            target_rate=self.target_rate,
        )
        loss, gradient = jax.value_and_grad(_flow_matching_loss)(state.field, batch, draws)
        field, field_optimiser, norm = optimisation.step(
            gradient, state.field_optimiser, state.field, learning_rate=self.learning_rate
        )
        metrics = value_metrics | {"flow_matching_loss": loss, "policy_grad_norm": norm}
        return IfqlState(field, field_optimiser, values), metrics

    def losses(self, state: IfqlState, batch: Transition, draws: FlowDraws, shared: tuple[()]) -> Metrics:
        """Every loss at the current parameters, without an update."""
        value_metrics = implicit.losses(state.values, batch, expectile=self.expectile, aggregation=self.q_aggregation)
        return value_metrics | {"flow_matching_loss": _flow_matching_loss(state.field, batch, draws)}

    def policy(self, state: IfqlState) -> GeneratorAndCritic:
        """The flow and the critic."""
        return GeneratorAndCritic(state.field, state.values.critic)


def _flow_matching_loss(field: VelocityField, batch: Transition, draws: FlowDraws) -> Float[Array, ""]:
    return mean_over(flow_matching_errors(field, batch, draws), batch.valid)
