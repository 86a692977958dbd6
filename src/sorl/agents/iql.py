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
    """Implicit Q-learning: values learned from logged actions only, and cloning weighted by the advantage.

    V is an expectile of Q over the logged actions, and Q bootstraps from V. The Gaussian policy N(mu(x), I) clones the
    logged actions with weights that grow with the advantage Q - V. Source: Kostrikov et al., "Offline Reinforcement
    Learning with Implicit Q-Learning" (2022); settings of the FQL paper (Park et al., 2025).

    - value: |expectile - 1(Qbar < V)| (agg Qbar(x, a) - V(x))^2, Qbar the moving average of Q
    - critic: (Q(x, a) - r - discount * V(x'))^2, discount being gamma^n, 0 where the episode terminated within the
      window
    - policy: -min(exp(temperature * (agg Qbar(x, a) - V(x))), 100) * log N(a; mu(x), I)

    One update: a step of V; a critic step with the new V in its target; a policy step, weighted with the new V and with
    Qbar from before the update; the moving average of the critic. Logged: `value_loss`, `v_mean`, `critic_loss`,
    `q_mean`, `target_q_mean`, `policy_loss`, `advantage_weight_mean`, `value_grad_norm`, `critic_grad_norm`,
    `policy_grad_norm`.

    Differences from the original: the action is clipped, and the mean has no tanh; the standard deviation is 1 unless
    `learned_std` is set; V and Q have layer norm (all three as in the FQL paper's comparison); the learning rate is
    constant. As in the original, advantages use the critic's moving average and the new V; the FQL paper's code uses
    the critic itself and the old V, and its moving average uses the critic from before the update. The logged critic
    loss is the mean over the heads, half of the official codes' sum over two (Adam's steps are the same). The action is
    mu(x); a budget's noise scale adds noise of that many standard deviations.
    """

    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (53, 4, 33, 2, 8, 83, 7, 28),
            # antsoccer's value is from table 7 (offline to online).
            temperature=[10.0, 10.0, 10.0, 10.0, 1.0, 1.0, 0.3, 10.0],
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
    """How the critic heads' values are aggregated for V and the advantage."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    learned_std: bool = eqx.field(static=True, default=False)
    """Whether the policy's standard deviation of each action dimension is learned; otherwise it is 1."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for all networks."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online critic that enters its moving average at each update."""
    expectile: float = 0.9
    """The expectile of Q over the logged actions that V learns: 0.5 is the mean, near 1 the maximum."""
    temperature: float = 10.0
    """Scale of the advantage in the policy's weights: 0 weights all actions equally, large values favour the best."""

    @property
    def actor(self) -> GaussianActor:
        """The mean, plus noise if the budget has a noise scale above 0."""
        return actor_of(GaussianActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> IqlState:
        """Fresh networks, the target critic equal to the critic, and new optimiser states."""
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
        """Empty: the losses need no random draws."""
        return ()

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[()]:
        """Empty: the seeds share no random draws."""
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
        """Every loss at the current parameters, without an update."""
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
