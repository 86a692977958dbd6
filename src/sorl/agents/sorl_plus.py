"""SORL+: `Sorl` with ideas of newer methods, each of them a switch; with all of them off it is `Sorl`."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sorl.agents.actors import GeneratorAndCritic, RenoisedActor, actor_of
from sorl.agents.actors.shortcut import step_counts
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import plus_losses, plus_settings, shortcut_agent, sorl_settings
from sorl.agents.shared.first_jumps import FirstJumps
from sorl.agents.shared.settings import MAX_STEPS, SHARE
from sorl.agents.shared.shortcut_agent import Metrics, SorlDraws, SorlSharedDraws, SorlState
from sorl.agents.shared.shortcut_losses import critic_gradient, first_jumps_at_once
from sorl.data.transitions import Transition
from sorl.functional import verifiers
from sorl.system.accelerators import on_accelerator
from sorl.system.ranges import MAX_NUMBER, refuse_outside


class SorlPlus(AbstractAgent):
    """SORL with an expected-max backup, value-weighted cloning, re-noised jumps, pessimism and a better single jump.

    Every idea is a switch that adds nothing to the program when it is off, as all are by default: then states, metrics
    and actions are those of `Sorl` bit for bit. In the order of `Sorl`'s losses, with its notation:

    - critic: (Q(x, a, k) - r - discount * max_i agg Qbar(x', a'_i, k))^2, a'_i = F_j(x', z'_i) for i = 1, .., N, N =
      `backup_candidates`, j = `backup_inference_steps`, or j = k without it; the usual budget has N candidates too, so
      that the critic values the policy that acts. Source: Li et al. 2025, "Reinforcement Learning with Action
      Chunking" (best of N of a cloned flow, which needs no Q loss: `use_q_loss`); the operator is that of Ghasemipour
      et al. 2021, "EMaQ"
    - agg: mean - rho std of the heads, std the population's, rho = `target_pessimism`, in place of `q_aggregation`;
      likewise for the Q loss (`q_loss_pessimism`, in place of the mean) and for the choice among candidates
      (`verifier_pessimism`). Source: Li & Levine 2025, "Q-learning with Adjoint Matching" (ten heads, rho 0.5)
    - F: with `renoise` = K, jumps with fresh noise before each, x_j = t_j a_j + (1 - t_j) z_j and a_(j+1) = x_j + 2^-j
      s(x_j, t_j, 2^-j | x), t_j = 1 - 2^-j, for j = 0, .., K - 1, in TD target, Q loss and acting; k is then K. Jumps
      with j above log2 M repeat time and size of that with j = log2 M, so every query has those of the training; the
      backpropagation has K jumps
    - policy, flow matching and self-consistency: each row times w = sigmoid((Qbar(x, a, k) - Qbar(x, F_k(x, z), k)) /
      (eta mean |Q|)), without a gradient, eta = `cloning_weight`, Qbar the aggregate of the target critic's heads and
      mean |Q| the normaliser of the Q loss (1 if `normalise_cloning_weight` is off). Source: Tiofack et al. 2025,
      "Guided Flow Policy"
    - policy, self-consistency: a share `one_jump_share` of the rows has the step 1, the other steps share the rest; the
      teacher is a moving average with rate `teacher_rate`
    - policy, distillation: beta |F_1(x, z) - stopgrad Fbar_M(x, z)|^2, F_1 before clipping, beta =
      `distillation_coefficient`, Fbar_M the moving average's action in M = `discretization_steps` jumps from the same
      noise. With the Q loss at k = 1 it is the one-step loss of FQL (Park et al. 2025, "Flow Q-Learning")
    - policy, Q loss: -mean Q(x, F_k(x, z), k) / mean |Q|, k drawn with the probabilities `q_step_weights` from 1, 2,
      4, .., `backprop_steps`

    Differences from the sources: they train flows and one-step policies, and their candidates take ten Euler steps;
    here one shortcut model is policy and clone, and its candidates take k jumps. Li et al. choose the best next action
    by Q, and Qbar values it; here Qbar does both. Of a chunk that crosses the end of its trajectory, they clone the
    actions before the end; here its row is left out. The Guided Flow Policy weights a flow of its own, from which the
    policy is distilled; its option to average the actions of both in the TD target has no counterpart where both are
    one model.

    Mean |Q| and the distillation need no logged action, so they are over all rows, as is the Q loss.

    Logged as by `Sorl`: `critic_loss`, `q_mean`, `target_q_mean`, `flow_matching_loss`, `self_consistency_loss`,
    `q_loss`, `policy_loss`, `policy_q_mean`, `critic_grad_norm`, `policy_grad_norm`, `td_policy_grad_norm`; and
    `cloning_weight_mean` and `distillation_loss` with those switches.
    """

    metric_descriptions = {
        "cloning_weight_mean": "mean weight of logged actions in cloning; 1/2: as good as the policy's own",
        "distillation_loss": "squared difference of one jump and the moving average's many jumps, from the same noise",
    }
    published = plus_settings.SETTINGS
    quickstart = sorl_settings.SORL_QUICKSTART
    own_logs = sorl_settings.SORL_OWN_LOGS

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the policy's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    discretization_steps: int = eqx.field(static=True, default=8)
    """M^disc: steps of the finest grid in training; a power of two, at least 2."""
    backprop_steps: int = eqx.field(static=True, default=8)
    """M^BTT: largest number of jumps in the Q loss's backpropagation; a power of two, <= `discretization_steps`."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True, default="mean")
    """How the critic heads' values are aggregated in the TD target and in best-of-N."""
    n_step: int = eqx.field(static=True, default=1)
    """n of n-step returns: the TD target sums n discounted rewards (fewer at a trajectory's end), then bootstraps."""
    chunk: int = eqx.field(static=True, default=1)
    """Length h of action chunks: the policy gives h actions at once, executed open-loop; Q values the whole chunk."""
    critic_sees_steps: bool = eqx.field(static=True, default=True)
    """Whether the policy's number of jumps is an input of the critic."""
    td_gradient_to_policy: bool = eqx.field(static=True, default=False)
    """Whether the TD loss also moves the policy, through the next actions of its target (as the released code does)."""
    act_with_average: bool = eqx.field(static=True, default=False)
    """Whether to act with the field's moving average, which is less noisy at high learning rates."""
    backup_candidates: int = eqx.field(static=True, default=1)
    """N: the TD target takes the best of N next actions, and the usual budget has N candidates; 1: off."""
    backup_inference_steps: int | None = eqx.field(static=True, default=None)
    """Number of jumps of the next actions, and of the usual budget; None: the jump count drawn for the TD target. The
    field's input is the largest trained number up to it."""
    use_q_loss: bool = eqx.field(static=True, default=True)
    """Whether the policy also maximises Q; if not, it is cloned, and an update costs less."""
    renoise: int = eqx.field(static=True, default=0)
    """K: number of re-noised jumps; 4 use all step sizes of a grid of 8, more repeat the smallest; 0: plain jumps."""
    normalise_cloning_weight: bool = eqx.field(static=True, default=True)
    """Whether `cloning_weight` is relative to the mean absolute Q, so that it does not depend on the rewards' scale."""
    verifier_pessimism: float | None = eqx.field(static=True, default=None)
    """rho of the choice among candidates: mean minus rho standard deviations of the heads; None: `q_aggregation`."""
    one_jump_share: float | None = eqx.field(static=True, default=None)
    """Share of the self-consistency rows that train the step of size 1; None: all step sizes have equal shares."""
    q_step_weights: tuple[float, ...] | None = eqx.field(static=True, default=None)
    """Probabilities of the Q loss's jump counts 1, 2, 4, .., up to a factor; None: equal."""
    cloning_weight: float | None = None
    """eta of value-weighted cloning: small values clone only actions better than the policy's own; None: off."""
    target_pessimism: float | None = None
    """rho of the TD target: mean minus rho standard deviations of the heads; None: `q_aggregation`."""
    q_loss_pessimism: float | None = None
    """rho of the Q loss: mean minus rho standard deviations of the heads; None: their mean."""
    teacher_rate: float | None = None
    """Rate of the field's moving average, the teacher of self-consistency; None: `target_rate`."""
    distillation_coefficient: float | None = None
    """Weight of the distillation of many jumps into one; None: off."""
    learning_rate: float = 1e-4
    """Adam's learning rate, for policy and critic."""
    late_learning_rate: float | None = None
    """Final learning rate, reached linearly from update `decay_start` to update `decay_end`; None: no change."""
    decay_start: float = 0.0
    """Number of updates after which the learning rate begins to change."""
    decay_end: float = 1e6
    """Number of updates after which the learning rate is `late_learning_rate`."""
    max_grad_norm: float = 1.0
    """Gradients of each network are scaled down to this global norm."""
    discount: float = 0.99
    """Discount gamma of future rewards, per environment step."""
    target_rate: float = 0.005
    """Share tau of the online network that enters its moving average at each update."""
    flow_matching_coefficient: float = 10.0
    """Weight of the flow-matching loss."""
    self_consistency_coefficient: float = 10.0
    """Weight of the self-consistency loss."""
    q_coefficient: float = 100.0
    """Weight of the Q loss: small values keep the policy near the data, large ones follow the critic."""

    def __check_init__(self):
        refuse_outside(
            self,
            decay_end=(self.decay_start + 1, math.inf),
            backup_inference_steps=(1, MAX_STEPS),
            cloning_weight=(1e-12, MAX_NUMBER),
            one_jump_share=SHARE,
            teacher_rate=SHARE,
            q_step_weights=(0.0, MAX_NUMBER),
        )
        counts, weights = self.step_counts, self.q_step_weights
        if weights is not None and (len(weights) != len(counts) or sum(weights) <= 0):
            raise ValueError(f"q_step_weights is {weights}; give a weight for each of {counts}, not all of them 0.")

    @property
    def actor(self) -> RenoisedActor:
        """Jumps of the field; the critic chooses among as many candidates as in the TD target."""
        actor = actor_of(RenoisedActor, self)
        return dataclasses.replace(actor, candidates=self.backup_candidates, usual_steps=self.backup_inference_steps)

    @property
    def values_may_be_lower(self) -> bool:
        """As in `AbstractAgent`: by the pessimism of the TD target."""
        return bool(self.target_pessimism)

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The jump counts that the Q loss and the TD target draw from: 1, 2, 4, .., M^BTT, or K alone."""
        return (self.renoise,) if self.renoise else step_counts(self.backprop_steps)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlState:
        """Fresh networks, moving averages equal to them, and new optimiser states."""
        return shortcut_agent.init(self, observation_size, action_size, key=key)

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlDraws:
        """Noise and times of one update; where an action needs more noise than `Sorl`'s, it is drawn anew."""
        draws = shortcut_agent.draw(
            batch_size, action_size, self.discretization_steps, one_jump_share=self.one_jump_share, key=key
        )

        def fresh(
            purpose: int, own: Float[Array, "batch action"], *leading: int
        ) -> Float[Array, "*leading batch action"]:
            if not leading:
                return own
            # Numbers from 3 on, because `split` of the key has used up 0 to 2.
            return jax.random.normal(jax.random.fold_in(key, purpose), (*leading, *own.shape), jnp.float32)

        jumps = (self.renoise,) if self.renoise else ()
        backup_jumps = (self.backup_inference_steps or self.renoise,) if self.renoise else ()
        candidates = (self.backup_candidates,) if self.backup_candidates > 1 else ()
        return dataclasses.replace(
            draws,
            policy_noise=fresh(3, draws.policy_noise, *jumps),
            target_noise=fresh(4, draws.target_noise, *backup_jumps, *candidates),
        )

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> SorlSharedDraws:
        """One jump count for the Q loss and one for the TD target."""
        return shortcut_agent.draw_shared(len(self.step_counts), policy_weights=self.q_step_weights, key=key)

    def update(
        self, state: SorlState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> tuple[SorlState, Metrics]:
        """One critic step, one policy step, and the moving averages, in this order."""
        first = None
        if on_accelerator() and plus_losses.has_policy_loss_of_sorl(self):
            plain = self.backup_candidates == 1 and self.backup_inference_steps is None
            steps = shared.policy_steps, shared.target_steps if plain else None
            networks = state.field, state.target_field
            first = first_jumps_at_once(self, *networks, batch, draws, *steps, one_jump_share=self.one_jump_share)
        return shortcut_agent.update(
            self,
            state,
            lambda: self._critic_gradient(state, batch, draws, shared.target_steps, first),
            lambda critic: plus_losses.policy_gradient(
                self, state, critic, batch, draws, shared.policy_steps, first=first
            ),
            teacher_rate=self.target_rate if self.teacher_rate is None else self.teacher_rate,
        )

    def losses(self, state: SorlState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws) -> Metrics:
        """Every loss at the current parameters, without an update."""
        _, _, critic_metrics = self._critic_gradient(state, batch, draws, shared.target_steps)
        _, policy_metrics = plus_losses.policy_gradient(self, state, state.critic, batch, draws, shared.policy_steps)
        return critic_metrics | policy_metrics

    def policy(self, state: SorlState) -> GeneratorAndCritic:
        """The field (its moving average if `act_with_average` is set) and the critic."""
        return GeneratorAndCritic(state.target_field if self.act_with_average else state.field, state.critic)

    def _critic_gradient(
        self,
        state: SorlState,
        batch: Transition,
        draws: SorlDraws,
        index: Int[Array, ""],
        first: FirstJumps | None = None,
    ):
        """The gradient of the TD loss for the critic, and for the policy if `td_gradient_to_policy` is set."""

        def next_actions(field, steps: int):
            field = field if first is None else first.for_target(field)
            return plus_losses.sample(self, field, batch.next_observation, draws.target_noise, steps)

        return critic_gradient(
            self,
            state,
            batch,
            next_actions,
            index,
            aggregation=plus_losses.aggregation(self.target_pessimism, self.q_aggregation),
            backup_steps=self.backup_inference_steps,
        )
