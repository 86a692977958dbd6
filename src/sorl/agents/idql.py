"""IDQL: implicit Q-learning, acting with the best sample of a diffusion model of the data."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import DenoisingActor, GeneratorAndCritic, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import diffusion_behaviour as behaviour, implicit_values as implicit
from sorl.agents.shared.published import DISCOUNT, EXPECTILE, TWO_LAYERS, Published, rows
from sorl.agents.shared.schedules import cosine_decay, no_metrics
from sorl.data.transitions import Transition
from sorl.functional import diffusion, optimisation, verifiers
from sorl.networks import NoisePredictor
from sorl.system.ranges import refuse_outside


Metrics = dict[str, Float[Array, ""]]


class IdqlState(eqx.Module):
    """Everything that training changes for one seed."""

    values: implicit.ImplicitValues
    model: NoisePredictor
    average_model: NoisePredictor
    """Moving average of `model`, used to act."""
    model_optimiser: PyTree
    value_metrics: dict[str, Float[Array, "*seeds"]]
    """Metrics of the last step of V and Q, logged again until their next step."""


class IdqlSharedDraws(eqx.Module):
    """The inputs of one update that are the same for all seeds."""

    step: Int[Array, ""]
    """Number of earlier updates; it decides whether V and Q are updated, and sets the model's learning rate."""


class Idql(AbstractAgent):
    """Implicit diffusion Q-learning: IQL's values and a diffusion model that clones, combined only when acting.

    The values do not affect the model's training. To act, it denoises `candidates` samples and takes the one with the
    highest agg Qbar; with one candidate it is behaviour cloning. Source: Hansen-Estruch et al., "IDQL: Implicit
    Q-Learning as an Actor-Critic Method with Diffusion Policies" (2023); settings of the FQL paper (Park et al., 2025).

    - value: |expectile - 1(Qbar < V)| (agg Qbar(x, a) - V(x))^2, Qbar the moving average of Q
    - critic: (Q(x, a) - r - discount * V(x'))^2, discount being gamma^n, 0 where the episode terminated within the
      window
    - model: |model(x, sqrt(alpha_bar) a + sqrt(1 - alpha_bar) z, t) - z|^2, z normal noise, t uniform on {1 / T, .., 1}
      for T = `denoising_steps`, alpha_bar(t) as in `sorl.functional.diffusion.alpha_bar`

    One update: a step of the model and its moving average; at every `value_interval`-th update also a step of V, a
    critic step with the new V in its target, and the critic's moving average. The model's learning rate decays to 0
    along half a cosine. Logged: `noise_prediction_loss`, `behaviour_grad_norm`, and, from the last step of V and Q (0
    before their first), `value_loss`, `v_mean`, `critic_loss`, `q_mean`, `target_q_mean`, `value_grad_norm`,
    `critic_grad_norm`.

    Differences from the original: sampling clips each step's estimate of the data action and adds noise with the
    posterior's variance, so that it can use other numbers of steps than training (there: the noisy action is clipped,
    and the variance is that of the forward step, which is larger, so that samples here spread a little less);
    activations are GELU; V and Q have layer norm. The logged critic loss is the mean over the heads (there: their sum).
    """

    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (21, 0, 1, 1, 12, 95, 15, 46),
            candidates=32,  # antsoccer's value is not known; this is that of every other environment
            expectile=EXPECTILE,
            critic_hidden_sizes=TWO_LAYERS,
            discount=DISCOUNT,
        ),
        updates=3_000_000,
        evaluation_interval=250_000,
    )
    quickstart = {"decay_updates": 40_000.0}

    width: int = eqx.field(static=True, default=256)
    """Width of the model's residual stream, in units; its blocks are four times as wide inside."""
    blocks: int = eqx.field(static=True, default=3)
    """Number of the model's residual blocks."""
    dropout_rate: float = eqx.field(static=True, default=0.1)
    """Share of units dropped before each block in training."""
    denoising_steps: int = eqx.field(static=True, default=5)
    """T: noise levels in training, and steps from noise to action."""
    candidates: int = eqx.field(static=True, default=32)
    """Number of actions sampled per decision, from which the critic chooses one."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(256, 256))
    """Widths of the hidden layers of V and of each critic head, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="min")
    """How the critic heads' values are aggregated for V and in the choice among candidates."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    value_interval: int = eqx.field(static=True, default=2)
    """Number of updates of the model per update of V and Q."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for all networks; the model's decays from it."""
    decay_updates: float = 3e6
    """Updates after which the model's learning rate is 0."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online critic that enters its moving average at each of the values' updates."""
    average_rate: float = 0.001
    """Share of the online model that enters its moving average at each update."""
    expectile: float = 0.9
    """The expectile of Q over the logged actions that V learns: 0.5 is the mean, near 1 the maximum."""
    most_noise_rate: float = 10.0
    """beta_max: rate of the noise schedule at time 1; at time 0 it is 0.1."""

    def __check_init__(self):
        refuse_outside(
            self,
            dropout_rate=(0.0, 0.99),
            decay_updates=(1.0, math.inf),
            most_noise_rate=(diffusion.BETA_MIN, math.inf),
        )

    @property
    def actor(self) -> DenoisingActor:
        """Denoising by the model's moving average; the critic's moving average chooses among several candidates."""
        return actor_of(DenoisingActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> IdqlState:
        """Fresh networks, moving averages equal to them, and new optimiser states."""
        model_key, values_key = jax.random.split(key)
        model = NoisePredictor(observation_size, action_size, self.width, self.blocks, key=model_key)
        return IdqlState(
            values=implicit.init(
                observation_size, action_size, self.critic_hidden_sizes, self.critic_heads, key=values_key
            ),
            model=model,
            average_model=jax.tree.map(jnp.copy, model),
            model_optimiser=optimisation.init(model),
            value_metrics=no_metrics(*implicit.METRICS),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> behaviour.BehaviourDraws:
        """Noise, times and dropout of one update."""
        return behaviour.draw(batch_size, action_size, self.blocks, self.width, self.dropout_rate, key=key)

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> IdqlSharedDraws:
        """The number of earlier updates."""
        return IdqlSharedDraws(step)

    def update(
        self, state: IdqlState, batch: Transition, draws: behaviour.BehaviourDraws, shared: IdqlSharedDraws
    ) -> tuple[IdqlState, Metrics]:
        """One step of the model, its moving average, and, if they are due, one step of V and Q."""
        model, model_optimiser, metrics = behaviour.step(
            state.model,
            state.model_optimiser,
            batch,
            draws,
            self._grid_time(draws.time),
            beta_max=self.most_noise_rate,
            learning_rate=cosine_decay(self.learning_rate, shared.step, self.decay_updates),
        )

        values, value_metrics = behaviour.values_in_turn(self, state.values, state.value_metrics, batch, shared.step)
        after = IdqlState(
            values=values,
            model=model,
            average_model=optimisation.moving_average(model, state.average_model, self.average_rate),
            model_optimiser=model_optimiser,
            value_metrics=value_metrics,
        )
        return after, metrics | value_metrics

    def losses(
        self, state: IdqlState, batch: Transition, draws: behaviour.BehaviourDraws, shared: IdqlSharedDraws
    ) -> Metrics:
        """Every loss at the current parameters, without an update and without dropout."""
        time = self._grid_time(draws.time)
        _, metrics = behaviour.loss(state.model, batch, behaviour.without_dropout(draws), time, self.most_noise_rate)
        return metrics | implicit.losses(state.values, batch, expectile=self.expectile, aggregation=self.q_aggregation)

    def policy(self, state: IdqlState) -> GeneratorAndCritic:
        """The model's moving average, and the critic's."""
        return GeneratorAndCritic(state.average_model, state.values.target_critic)

    def _grid_time(self, time: Float[Array, " batch"]) -> Float[Array, " batch"]:
        """Maps uniform times on [0, 1) to uniform times on {1 / T, .., 1}."""
        return (jnp.floor(self.denoising_steps * time) + 1) / self.denoising_steps
