"""SRPO: a deterministic policy trained by a critic and the score of a diffusion model of the data."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import DeterministicActor, actor_of
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import diffusion_behaviour as behaviour, implicit_values as implicit
from sorl.agents.shared.published import DISCOUNT, ENVIRONMENTS, EXPECTILE, TWO_LAYERS, Published, rows
from sorl.agents.shared.schedules import cosine_decay, no_metrics
from sorl.data.transitions import Transition
from sorl.functional import diffusion, optimisation, verifiers
from sorl.networks import GaussianNetwork, NoisePredictor
from sorl.system.ranges import refuse_outside


Metrics = dict[str, Float[Array, ""]]

_POLICY_METRICS = ("policy_q_mean", "score_gradient_norm", "policy_grad_norm")


class SrpoState(eqx.Module):
    """Everything that training changes for one seed."""

    values: implicit.ImplicitValues
    model: NoisePredictor
    actor: GaussianNetwork
    model_optimiser: PyTree
    actor_optimiser: PyTree
    metrics: dict[str, Float[Array, "*seeds"]]
    """Metrics of each part's last step, logged again until its next step."""


class SrpoSharedDraws(eqx.Module):
    """The inputs of one update that are the same for all seeds."""

    step: Int[Array, ""]
    """Number of earlier updates; it decides the phase."""


class Srpo(AbstractAgent):
    """Score-regularised policy optimisation: a one-pass policy, kept near the data by a frozen diffusion model.

    Phase one, the first `pretraining_updates` updates, trains the model and IQL's values as `Idql` does. Phase two
    freezes both and trains the deterministic policy pi(x) = tanh(f(x)), which is unimodal. If a run ends within phase
    one, its policy is untrained. Source: Chen et al., "Score Regularized Policy Optimization through Diffusion
    Behavior" (2024); settings of the FQL paper (Park et al., 2025).

    - value: |expectile - 1(Qbar < V)| (agg Qbar(x, a) - V(x))^2, Qbar the moving average of Q
    - critic: (Q(x, a) - r - discount * V(x'))^2, discount being gamma^n, 0 where the episode terminated within the
      window
    - model: |model(x, sqrt(alpha_bar) a + sqrt(1 - alpha_bar) z, t) - z|^2, z normal noise, t uniform on [0.001, 1],
      alpha_bar(t) as in `sorl.functional.diffusion.alpha_bar`
    - policy: pi(x) . ((1 - alpha_bar) (model(x, sqrt(alpha_bar) pi(x) + sqrt(1 - alpha_bar) z, t) - z) - q_coefficient
      * g), the second factor held fixed, t uniform on [0.02, 0.98]; g is the gradient of mean Qbar(x, a) at a = pi(x),
      with `normalise_guidance` divided by its root mean square over action dimensions

    One update of phase one: a step of the model; at every `value_interval`-th update also a step of V, a critic step
    with the new V in its target, and the critic's moving average. One update of phase two: a policy step, whose
    learning rate decays to 0 along half a cosine. Logged, from each part's last step (0 before its first):
    `noise_prediction_loss`, `behaviour_grad_norm`, `value_loss`, `v_mean`, `critic_loss`, `q_mean`, `target_q_mean`,
    `value_grad_norm`, `critic_grad_norm`, `policy_q_mean`, `score_gradient_norm`, `policy_grad_norm`.

    Differences from the original, whose beta is `q_coefficient`: model and values train together on the same batches
    (there: in two runs of 2 and 1.5 million updates, the model with batches of 2048); the model's time features are
    learned and start with a standard deviation of 1 (there: random with 30, and fixed); its Adam has no weight decay;
    activations are GELU; V and Q have layer norm.
    """

    metric_descriptions = {
        "score_gradient_norm": "mean norm of the score's gradient in the policy's actions, which pulls to the data",
    }
    # Source: the FQL paper's tables.
    published = Published(
        rows(
            (11, 0, 1, 0, 1, 80, 2, 20),
            # antsoccer's value is not known; this is that of every other locomotion environment.
            q_coefficient=[0.3, 0.3, 0.3, 0.3, 0.3, 0.03, 0.1, 0.1],
            # SRPO's code decides by "maze" in the environment's name; whether the FQL paper's runs did is not known.
            normalise_guidance=["maze" in env for env in ENVIRONMENTS],
            expectile=EXPECTILE,
            critic_hidden_sizes=TWO_LAYERS,
            discount=DISCOUNT,
        ),
        updates=4_000_000,  # not known; 3 million for model and values as in Idql, and 1 million for the policy
    )
    quickstart = {"pretraining_updates": 28_000, "decay_updates": 12_000.0}

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the policy's hidden layers, in units."""
    width: int = eqx.field(static=True, default=256)
    """Width of the model's residual stream, in units; its blocks are four times as wide inside."""
    blocks: int = eqx.field(static=True, default=3)
    """Number of the model's residual blocks."""
    dropout_rate: float = eqx.field(static=True, default=0.1)
    """Share of units dropped before each block in the model's training."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(256, 256))
    """Widths of the hidden layers of V and of each critic head, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="min")
    """How the critic heads' values are aggregated for V; the policy's loss uses their mean."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    value_interval: int = eqx.field(static=True, default=2)
    """Number of updates of the model per update of V and Q."""
    pretraining_updates: int = 3_000_000
    """Number of updates of phase one, which train the model and the values but not the policy."""
    decay_updates: float = 1e6
    """Number of updates of phase two after which the policy's learning rate is 0."""
    learning_rate: float = 3e-4
    """Adam's learning rate, for all networks; the policy's decays from it."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online critic that enters its moving average at each of the values' updates."""
    expectile: float = 0.9
    """The expectile of Q over the logged actions that V learns: 0.5 is the mean, near 1 the maximum."""
    q_coefficient: float = 0.1
    """Weight of the critic's gradient: small values keep the policy near the data, large ones follow the critic."""
    most_noise_rate: float = 20.0
    """beta_max: rate of the noise schedule at time 1; at time 0 it is 0.1."""
    normalise_guidance: bool = eqx.field(static=True, default=False)
    """Whether each action's critic gradient is divided by its root mean square, which makes it independent of the scale
    of Q (the original code's `regq`, which it uses in mazes)."""

    def __check_init__(self):
        refuse_outside(
            self,
            dropout_rate=(0.0, 0.99),
            decay_updates=(1.0, math.inf),
            most_noise_rate=(diffusion.BETA_MIN, math.inf),
        )

    @property
    def updates_before_policy(self) -> int:
        """As in `AbstractAgent`: phase one."""
        return self.pretraining_updates

    @property
    def actor(self) -> DeterministicActor:
        """The deterministic policy."""
        return actor_of(DeterministicActor, self)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> SrpoState:
        """Fresh networks, the target critic equal to the critic, and new optimiser states."""
        actor_key, model_key, values_key = jax.random.split(key, 3)
        actor = GaussianNetwork(observation_size, action_size, self.hidden_sizes, tanh_mean=True, key=actor_key)
        model = NoisePredictor(observation_size, action_size, self.width, self.blocks, key=model_key)
        return SrpoState(
            values=implicit.init(
                observation_size, action_size, self.critic_hidden_sizes, self.critic_heads, key=values_key
            ),
            model=model,
            actor=actor,
            model_optimiser=optimisation.init(model),
            actor_optimiser=optimisation.init(actor),
            metrics=no_metrics("noise_prediction_loss", "behaviour_grad_norm", *implicit.METRICS, *_POLICY_METRICS),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> behaviour.BehaviourDraws:
        """Noise and times, which both phases use, and the model's dropout."""
        return behaviour.draw(batch_size, action_size, self.blocks, self.width, self.dropout_rate, key=key)

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> SrpoSharedDraws:
        """The number of earlier updates."""
        return SrpoSharedDraws(step)

    def update(
        self, state: SrpoState, batch: Transition, draws: behaviour.BehaviourDraws, shared: SrpoSharedDraws
    ) -> tuple[SrpoState, Metrics]:
        """One update of the current phase."""
        state = jax.lax.cond(
            shared.step < self.pretraining_updates,
            lambda s: self._pretrain(s, batch, draws, shared.step),
            lambda s: self._improve(s, batch, draws, shared.step),
            state,
        )
        return state, state.metrics

    def losses(
        self, state: SrpoState, batch: Transition, draws: behaviour.BehaviourDraws, shared: SrpoSharedDraws
    ) -> Metrics:
        """Every loss of both phases at the current parameters, without an update and without dropout."""
        _, metrics = behaviour.loss(
            state.model, batch, behaviour.without_dropout(draws), _model_time(draws.time), self.most_noise_rate
        )
        _, policy_metrics = self._direction(state, jax.vmap(state.actor.mean)(batch.observation), batch, draws)
        value_metrics = implicit.losses(state.values, batch, expectile=self.expectile, aggregation=self.q_aggregation)
        return metrics | value_metrics | policy_metrics

    def policy(self, state: SrpoState) -> GaussianNetwork:
        """The policy's network."""
        return state.actor

    def _pretrain(
        self, state: SrpoState, batch: Transition, draws: behaviour.BehaviourDraws, step: Int[Array, ""]
    ) -> SrpoState:
        """Phase one: a step of the model, and, if they are due, a step of V and Q."""
        model, model_optimiser, metrics = behaviour.step(
            state.model,
            state.model_optimiser,
            batch,
            draws,
            _model_time(draws.time),
            beta_max=self.most_noise_rate,
            learning_rate=self.learning_rate,
        )

        values, value_metrics = behaviour.values_in_turn(self, state.values, state.metrics, batch, step)
        return SrpoState(
            values=values,
            model=model,
            actor=state.actor,
            model_optimiser=model_optimiser,
            actor_optimiser=state.actor_optimiser,
            metrics=state.metrics | metrics | value_metrics,
        )

    def _improve(
        self, state: SrpoState, batch: Transition, draws: behaviour.BehaviourDraws, step: Int[Array, ""]
    ) -> SrpoState:
        """Phase two: a step of the policy."""
        action, pull_back = jax.vjp(lambda actor: jax.vmap(actor.mean)(batch.observation), state.actor)
        direction, metrics = self._direction(state, action, batch, draws)
        (gradient,) = pull_back(direction / len(action))
        actor, actor_optimiser, metrics["policy_grad_norm"] = optimisation.step(
            gradient,
            state.actor_optimiser,
            state.actor,
            learning_rate=cosine_decay(self.learning_rate, step - self.pretraining_updates, self.decay_updates),
        )
        return SrpoState(
            values=state.values,
            model=state.model,
            actor=actor,
            model_optimiser=state.model_optimiser,
            actor_optimiser=actor_optimiser,
            metrics=state.metrics | metrics,
        )

    def _direction(
        self, state: SrpoState, action: Float[Array, "batch action"], batch: Transition, draws: behaviour.BehaviourDraws
    ) -> tuple[Float[Array, "batch action"], Metrics]:
        """The gradient of the policy's loss with respect to each action: the score's minus the critic's, weighted."""

        def away_from_data(observation, action, noise, time):
            return diffusion.score_gradient(state.model, observation, action, noise, time, self.most_noise_rate)

        def q_of(observation, action):
            return verifiers.aggregate(state.values.target_critic(observation, action), "mean")

        time = 0.02 + 0.96 * draws.time
        score = jax.vmap(away_from_data)(batch.observation, action, draws.noise, time)
        q, uphill = jax.vmap(jax.value_and_grad(q_of, argnums=1))(batch.observation, action)
        if self.normalise_guidance:
            square = jnp.mean(uphill**2, axis=-1, keepdims=True)
            # A flat critic gives no guidance; the original's 0 / 0 would end the run.
            uphill = jnp.where(square > 0, uphill / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        norms = jnp.linalg.norm(score, axis=-1)
        return score - self.q_coefficient * uphill, {
            "policy_q_mean": jnp.mean(q),
            "score_gradient_norm": jnp.mean(norms),
        }


def _model_time(time: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """Maps [0, 1) to [0.001, 1), because at time 0 there is no noise to predict."""
    return 0.001 + 0.999 * time
