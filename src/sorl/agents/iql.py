"""IQL: implicit Q-learning."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import GaussianActor, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import implicit_values as implicit
from sorl.agents.shared.published import DISCOUNT, FOUR_LAYERS, Published, rows
from sorl.data.transitions import Transition
from sorl.functional import expectile as values, optimisation, verifiers
from sorl.networks import GaussianNetwork, Value


class IqlState(eqx.Module):
    """Everything that training changes for one seed."""

    values: implicit.ImplicitValues
    actor: GaussianNetwork
    actor_optimiser: PyTree


class Iql(AbstractAgent):
    """Implicit Q-learning: values that never ask about an action outside the data, and cloning weighted by advantage.

    V is an expectile of Q over the logged actions, and Q bootstraps from V; the Gaussian policy N(mu(x), I) clones the
    actions that are better than V says. Source: Kostrikov et al., "Offline Reinforcement Learning with Implicit
    Q-Learning" (2022); settings of the FQL paper (Park et al., 2025).

    - value: |expectile - 1(Qbar < V)| (agg Qbar(x, a) - V(x))^2, Qbar the moving average of Q
    - critic: (Q(x, a) - r - discount * mask * V(x'))^2
    - policy: -min(exp(temperature * (agg Qbar(x, a) - V(x))), 100) * log N(a; mu(x), I)

    One update: a step of V; a critic step towards that V; a policy step, weighted by that V and by Qbar from before the
    update; the moving average of the critic. Logged: `value_loss`, `v_mean`, `critic_loss`, `q_mean`, `target_q_mean`,
    `policy_loss`, `advantage_weight_mean`, `value_grad_norm`, `critic_grad_norm`, `policy_grad_norm`.

    Differences from the original: no tanh about the mean, but a clip of the action; a deviation of 1 unless
    `learned_std`; layer norm in V and Q (all three as in the FQL paper's comparison); a constant learning rate. As in
    the original, advantages ask the critic's moving average and the V that was just made; the FQL paper's code asks the
    critic itself and the V from before, and its moving average takes in the critic from before the update. The logged
    critic loss is the mean over the heads, half the official codes' sum over two (Adam's steps are the same). It acts
    on mu(x), and a budget's noise scale adds so many deviations of noise.
    """

    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (53, 4, 33, 2, 8, 83, 7, 28),
            temperature=[
                10.0,
                10.0,
                10.0,
                10.0,
                1.0,
                1.0,
                0.3,
                10.0,
            ],  # antsoccer's is that of table 7, offline to online
            hidden_sizes=FOUR_LAYERS,
            critic_hidden_sizes=FOUR_LAYERS,
            discount=DISCOUNT,
        )
    )

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the policy's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the hidden layers of V and of each critic head, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="min")
    """How critic heads become one value for V and the advantage."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards, fewer at a trajectory's end, then bootstraps."""
    learned_std: bool = eqx.field(static=True, default=False)
    """Whether the policy's standard deviation of each action dimension is learned, rather than 1."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for all networks."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online critic that enters its moving average at each update."""
    expectile: float = 0.9
    """Which expectile of Q over the logged actions V is: 0.5 their mean, near 1 their best."""
    temperature: float = 10.0
    """Scale of the advantage in the policy's weights: 0 clones all actions alike, large the best alone."""

    @property
    def actor(self) -> GaussianActor:
        """The mean, and noise where a budget asks for it."""
        return actor_of(GaussianActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> IqlState:
        """Fresh networks, the target critic equal to the critic, and empty optimisers."""
        actor_key, values_key = jax.random.split(key)
        actor = GaussianNetwork(
            observation_size, action_size, self.hidden_sizes, learned_std=self.learned_std, key=actor_key
        )
        return IqlState(
            values=implicit.init(
                observation_size, action_size, self.critic_hidden_sizes, self.critic_heads, key=values_key
            ),
            actor=actor,
            actor_optimiser=optimisation.init(actor),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> tuple[()]:
        """Nothing: no loss is random."""
        return ()

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[()]:
        """Nothing."""
        return ()

    def update(
        self, state: IqlState, batch: Transition, draws: tuple[()], shared: tuple[()]
    ) -> tuple[IqlState, dict[str, Float[Array, ""]]]:
        """One step of V, of the critic and of the policy, and the critic's moving average."""
        q = implicit.target_q(state.values, batch, self.q_aggregation)
        learned, value_metrics = implicit.step(
            state.values,
            batch,
            q,
            expectile=self.expectile,
            learning_rate=self.learning_rate,
            target_rate=self.target_rate,
        )
        gradient, metrics = jax.grad(_policy_loss, has_aux=True)(state.actor, learned.value, batch, q, self.temperature)
        actor, actor_optimiser, metrics["policy_grad_norm"] = optimisation.step(
            gradient, state.actor_optimiser, state.actor, learning_rate=self.learning_rate
        )
        return IqlState(learned, actor, actor_optimiser), value_metrics | metrics

    def losses(
        self, state: IqlState, batch: Transition, draws: tuple[()], shared: tuple[()]
    ) -> dict[str, Float[Array, ""]]:
        """Every loss at the present parameters, without an update."""
        q = implicit.target_q(state.values, batch, self.q_aggregation)
        _, metrics = _policy_loss(state.actor, state.values.value, batch, q, self.temperature)
        return metrics | implicit.losses(state.values, batch, expectile=self.expectile, aggregation=self.q_aggregation)

    def policy(self, state: IqlState) -> GaussianNetwork:
        """The policy's network."""
        return state.actor


def _policy_loss(
    actor: GaussianNetwork,
    value: Value,
    batch: Transition,
    q: Float[Array, " batch"],
    temperature: float | Float[Array, ""],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    weight = values.advantage_weight(q - jax.vmap(value)(batch.observation), temperature)
    loss = -jnp.mean(weight * jax.vmap(actor.log_probability)(batch.observation, batch.action))
    return loss, {"policy_loss": loss, "advantage_weight_mean": jnp.mean(weight)}
