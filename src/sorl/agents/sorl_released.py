"""The update of SORL's released code, with its differences from the paper, so that results can be compared."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.actors import GeneratorAndCritic, ShortcutActor, actor_of
from sorl.agents.actors.shortcut import step_counts
from sorl.agents.interface import AbstractAgent
from sorl.agents.shared import sorl_settings
from sorl.agents.shared.branches import gradient_of_one
from sorl.agents.shared.shortcut_agent import SorlDraws, SorlSharedDraws, draw, draw_shared
from sorl.agents.shared.shortcut_losses import policy_gradient, td_loss
from sorl.agents.sorl import Sorl
from sorl.data.transitions import Transition
from sorl.functional import optimisation, shortcut, verifiers
from sorl.networks import CriticEnsemble, ShortcutField


class SorlReleasedState(eqx.Module):
    """Everything that training changes for one seed."""

    field: ShortcutField
    target_field: ShortcutField
    """Moving average of `field`: the teacher of self-consistency."""
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: evaluates the next action in the TD target."""
    optimiser: PyTree
    """One Adam for `field` and `critic` together.

    The released code's Adam also includes both targets; their gradients are zero, so omitting them changes nothing.
    """


class SorlReleased(AbstractAgent):
    """SORL with the update of its authors' released code; `Sorl` follows the paper's formulas.

    One update from the parameters P: (1) a TD step whose target keeps its gradient, so that it also moves the policy;
    (2) a policy step from the result, whose Q loss uses the critic of P and whose self-consistency teacher is the
    moving average of P; (3) both moving averages, from P. One global-norm clip and one Adam cover policy and critic in
    both steps: Adam's count advances by two, and each step also moves the other network by momentum. The losses are
    those of `Sorl`; their discount is gamma^n, 0 where the episode terminated within the window.

    Initialisation, draws and actions are those of `Sorl`; the released code's evaluation is not reproduced.

    Logged: `critic_loss`, `q_mean`, `target_q_mean`, `flow_matching_loss`, `self_consistency_loss`, `q_loss`,
    `policy_loss`, `policy_q_mean`, `critic_grad_norm`, `policy_grad_norm`, `td_policy_grad_norm`.
    """

    published = sorl_settings.PUBLISHED
    quickstart = sorl_settings.QUICKSTART
    own_logs = {"q_coefficient": 1.0}  # as for `Sorl`

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
    learning_rate: float = 1e-4
    """Adam's learning rate; each update makes two Adam steps."""
    max_grad_norm: float = 1.0
    """Gradients of policy and critic together are scaled down to this global norm."""
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

    @property
    def actor(self) -> ShortcutActor:
        """Jumps of the field; the critic chooses among several candidates."""
        return actor_of(ShortcutActor, self)

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The jump counts that the Q loss and the TD target draw from: 1, 2, 4, .., M^BTT."""
        return step_counts(self.backprop_steps)

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlReleasedState:
        """Fresh networks, equal to those of `Sorl`, moving averages equal to them, and an empty optimiser."""
        # Pass only the network sizes: under jit the other settings are tracers, and initialisation needs none of them.
        like_sorl = Sorl(
            hidden_sizes=self.hidden_sizes, critic_hidden_sizes=self.critic_hidden_sizes, critic_heads=self.critic_heads
        )
        state = like_sorl.init(observation_size, action_size, key=key)
        trained: Any = state.field, state.critic
        return SorlReleasedState(
            field=state.field,
            target_field=state.target_field,
            critic=state.critic,
            target_critic=state.target_critic,
            optimiser=optimisation.init(trained),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlDraws:
        """Noise and times of one update for a batch of `batch_size` transitions."""
        return draw(batch_size, action_size, self.discretization_steps, key=key)

    def draw_shared(self, step: Int[Array, ""], *, key: Key[Array, ""]) -> SorlSharedDraws:
        """One jump count for the Q loss and one for the TD target, uniform over `step_counts`."""
        return draw_shared(len(self.step_counts), key=key)

    def update(
        self, state: SorlReleasedState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> tuple[SorlReleasedState, dict[str, Float[Array, ""]]]:
        """One TD step, one policy step, and the moving averages of the networks from before both steps."""
        # (1) The TD step, which moves the critic and the policy.
        rates: Any = {"learning_rate": self.learning_rate, "max_grad_norm": self.max_grad_norm}
        td_gradient, td_metrics = self._td_gradient(state, batch, draws, shared.target_steps)
        networks, optimiser_state, _ = optimisation.step(
            td_gradient, state.optimiser, (state.field, state.critic), **rates
        )

        # (2) The policy step, with the critic and the teacher from before this update.
        gradient, policy_metrics = policy_gradient(
            self, networks[0], state.target_field, state.critic, batch, draws, shared.policy_steps
        )
        # The critic gets no gradient here, but its momentum still moves it.
        no_gradient = jax.tree.map(jnp.zeros_like, state.critic)
        (field, critic), optimiser_state, policy_norm = optimisation.step(
            (gradient, no_gradient), optimiser_state, networks, **rates
        )

        metrics = td_metrics | policy_metrics
        metrics["td_policy_grad_norm"] = optimisation.norm(td_gradient[0])
        metrics["critic_grad_norm"] = optimisation.norm(td_gradient[1])
        metrics["policy_grad_norm"] = policy_norm
        # (3) The moving averages use the networks from before this update.
        return (
            SorlReleasedState(
                field=field,
                target_field=optimisation.moving_average(state.field, state.target_field, self.target_rate),
                critic=critic,
                target_critic=optimisation.moving_average(state.critic, state.target_critic, self.target_rate),
                optimiser=optimiser_state,
            ),
            metrics,
        )

    def losses(
        self, state: SorlReleasedState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> dict[str, Float[Array, ""]]:
        """Every loss at the current parameters, without an update."""
        _, td_metrics = self._td_gradient(state, batch, draws, shared.target_steps)
        _, policy_metrics = policy_gradient(
            self, state.field, state.target_field, state.critic, batch, draws, shared.policy_steps
        )
        return td_metrics | policy_metrics

    def policy(self, state: SorlReleasedState) -> GeneratorAndCritic:
        """The online field and critic."""
        return GeneratorAndCritic(state.field, state.critic)

    def _td_gradient(self, state: SorlReleasedState, batch: Transition, draws: SorlDraws, index: Int[Array, ""]):
        def loss(networks, steps: int):
            field, critic = networks
            return td_loss(
                critic,
                state.target_critic,
                batch,
                shortcut.sample(field, batch.next_observation, draws.target_noise, steps),
                steps,
                aggregation=self.q_aggregation,
                stop_gradient=False,
            )

        return gradient_of_one(loss, (state.field, state.critic), index, self.step_counts)
