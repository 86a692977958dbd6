"""SORL: one shortcut policy for all budgets, trained by flow matching, self-consistency and a Q loss."""

import math

import equinox as eqx
from jaxtyping import Array, Int, Key

from sorl.agents.actors import GeneratorAndCritic, ShortcutActor, actor_of
from sorl.agents.actors.shortcut import step_counts
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import shortcut_agent, sorl_settings
from sorl.agents.shared.first_jumps import FirstJumps
from sorl.agents.shared.shortcut_agent import Metrics, SorlDraws, SorlSharedDraws, SorlState
from sorl.agents.shared.shortcut_losses import critic_gradient, first_jumps_at_once, policy_gradient
from sorl.data.transitions import Transition
from sorl.functional import shortcut, verifiers
from sorl.system.accelerators import on_accelerator
from sorl.system.ranges import refuse_outside


class Sorl(AbstractAgent):
    """SORL by the paper's formulas: one optimiser per network, no gradient through the TD target, averages last.

    One update: (1) a critic step towards the TD target; (2) a policy step, whose Q loss uses the critic of step (1) and
    whose self-consistency teacher is the moving average from before this update; (3) both moving averages, from the
    updated networks. Source: Espinosa-Dice et al., "Scaling Offline RL via Efficient and Expressive Shortcut Models"
    (NeurIPS 2025).

    - critic: (Q(x, a, k) - r - discount * agg Qbar(x', F_k(x', z'), k))^2, Qbar the moving average of Q, F_k(x, z) the
      action after k jumps of s from noise z, clipped to [-1, 1] after the last, k uniform on 1, 2, 4, ..,
      `backprop_steps`; discount is gamma^n, 0 where the episode terminated within the window
    - policy, flow matching: |s(a^t, t, 1 / M | x) - (a - a^0)|^2, M = `discretization_steps`, a^t = (1 - t) a^0 + t a
      except for a small rest of noise at t = 1
    - policy, self-consistency: |s(a^t, t, d | x) - (v + v') / 2|^2 for steps d of 2 / M, 4 / M, .., 1, in this order
      for equal parts of the batch (its remainder has d = 1), with v and v' the teacher's velocities in two steps of
      d / 2 from a^t
    - policy, Q loss: -mean Q(x, F_k(x, z), k) / mean |Q|, with its own draw of k and the gradient through all k jumps

    Losses are means over the batch, the heads and the numbers of a vector. Rows whose chunk crosses the end of its
    trajectory are left out, except from the Q loss, which needs no logged action.

    Logged: `critic_loss`, `q_mean`, `target_q_mean`, `flow_matching_loss`, `self_consistency_loss`, `q_loss`,
    `policy_loss`, `policy_q_mean`, `critic_grad_norm`, `policy_grad_norm`, and `td_policy_grad_norm` if
    `td_gradient_to_policy` is set.
    """

    published = sorl_settings.PUBLISHED
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
        refuse_outside(self, decay_end=(self.decay_start + 1, math.inf))

    @property
    def actor(self) -> ShortcutActor:
        """Jumps of the field; the critic chooses among several candidates."""
        return actor_of(ShortcutActor, self)

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The jump counts that the Q loss and the TD target draw from: 1, 2, 4, .., M^BTT."""
        return step_counts(self.backprop_steps)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlState:
        """Fresh networks, moving averages equal to them, and new optimiser states."""
        return shortcut_agent.init(self, observation_size, action_size, key=key)

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlDraws:
        """Noise and times of one update for a batch of `batch_size` transitions."""
        return shortcut_agent.draw(batch_size, action_size, self.discretization_steps, key=key)

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> SorlSharedDraws:
        """One jump count for the Q loss and one for the TD target, uniform over `step_counts`."""
        return shortcut_agent.draw_shared(len(self.step_counts), key=key)

    def update(
        self, state: SorlState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> tuple[SorlState, Metrics]:
        """One critic step, one policy step, and the moving averages, in this order."""
        steps = shared.policy_steps, shared.target_steps
        networks = state.field, state.target_field
        first = first_jumps_at_once(self, *networks, batch, draws, *steps) if on_accelerator() else None
        return shortcut_agent.update(
            self,
            state,
            lambda: self._critic_gradient(state, batch, draws, shared.target_steps, first),
            lambda critic: policy_gradient(self, *networks, critic, batch, draws, shared.policy_steps, first=first),
            teacher_rate=self.target_rate,
        )

    def losses(self, state: SorlState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws) -> Metrics:
        """Every loss at the current parameters, without an update."""
        _, _, critic_metrics = self._critic_gradient(state, batch, draws, shared.target_steps)
        _, policy_metrics = policy_gradient(
            self, state.field, state.target_field, state.critic, batch, draws, shared.policy_steps
        )
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

        def next_action(field, steps: int):
            field = field if first is None else first.for_target(field)
            return shortcut.sample(field, batch.next_observation, draws.target_noise, steps)

        return critic_gradient(self, state, batch, next_action, index, aggregation=self.q_aggregation)
