"""The released implementation's update, reproduced departures and all, so that its numbers can be compared."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from sorl import critics, shortcut
from sorl.agents._agent import AbstractAgent, Budget
from sorl.agents.sorl import Sorl, SorlDraws, SorlPolicy, SorlSharedDraws
from sorl.networks import CriticEnsemble, ShortcutField
from sorl.transitions import Transition


class SorlReleasedState(eqx.Module):
    """Everything that training changes for one seed."""

    field: ShortcutField
    target_field: ShortcutField
    """Moving average of `field`: the teacher of self-consistency."""
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: values the next action in the TD target."""
    optimiser: optax.OptState
    """One Adam for `field` and `critic` together."""


class SorlReleased(AbstractAgent):
    """SORL as its authors' released code updates it; `Sorl` is the sound method.

    One update, P being the parameters at its start: (1) a TD step whose target keeps its gradient, so that it moves
    the policy too; (2) a policy step from there, whose Q loss asks the critic of P and whose self-consistency teacher
    is the moving average of P; (3) both moving averages, from P. One global-norm clip and one Adam span policy and
    critic and serve both steps: its count advances by two, and each step also moves the other network by momentum.

    Initialisation, draws and decisions are those of `Sorl`: the released code's evaluation is not reproduced.
    """

    hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of the policy's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True, default=(512, 512, 512, 512))
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True, default=2)
    """Number of critic heads."""
    discretization_steps: int = eqx.field(static=True, default=8)
    """M^disc: steps of the finest grid in training; a power of two, at least 2."""
    backprop_steps: int = eqx.field(static=True, default=8)
    """M^BTT: most jumps that the Q loss backpropagates through; a power of two, at most `discretization_steps`."""
    q_aggregation: critics.Aggregation = eqx.field(static=True, default="mean")
    """How critic heads become one value in the TD target and in best-of-N."""
    learning_rate: float = 1e-4
    """Adam's learning rate; each update takes two steps of it."""
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
    """Weight of the Q loss: small stays near the data, large trusts the critic."""

    def __check_init__(self):
        self._sound()  # Refuses the same settings.

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The jump counts that the Q loss and the TD target draw from: 1, 2, 4, .., M^BTT."""
        return self._sound().step_counts

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlReleasedState:
        """Fresh networks, equal to those of `Sorl`, moving averages equal to them, and an empty optimiser."""
        state = self._sound().init(observation_size, action_size, key=key)
        trained: Any = state.field, state.critic
        return SorlReleasedState(
            field=state.field,
            target_field=state.target_field,
            critic=state.critic,
            target_critic=state.target_critic,
            optimiser=self.optimiser().init(trained),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlDraws:
        """Noise and times of one update for a batch of `batch_size` transitions."""
        return self._sound().draw(batch_size, action_size, key=key)

    def draw_shared(self, *, key: Key[Array, ""]) -> SorlSharedDraws:
        """One jump count for the Q loss and one for the TD target, uniform over `step_counts`."""
        return self._sound().draw_shared(key=key)

    def update(
        self, state: SorlReleasedState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> tuple[SorlReleasedState, dict[str, Float[Array, ""]]]:
        """One TD step, one policy step, and the moving averages of the networks from before them."""
        td_gradient, td_metrics = self._td_gradient(state, batch, draws, shared.target_steps)
        networks, optimiser_state = self._step(td_gradient, state.optimiser, (state.field, state.critic))

        gradient, policy_metrics = self._policy_gradient(networks[0], state, batch, draws, shared.policy_steps)
        # No gradient reaches the critic here, but its momentum still moves it.
        no_gradient = jax.tree.map(jnp.zeros_like, state.critic)
        (field, critic), optimiser_state = self._step((gradient, no_gradient), optimiser_state, networks)

        metrics = td_metrics | policy_metrics
        metrics["td_policy_grad_norm"] = optax.tree.norm(td_gradient[0])
        metrics["critic_grad_norm"] = optax.tree.norm(td_gradient[1])
        metrics["policy_grad_norm"] = optax.tree.norm(gradient)
        return (
            SorlReleasedState(
                field=field,
                target_field=self._average(state.field, state.target_field),
                critic=critic,
                target_critic=self._average(state.critic, state.target_critic),
                optimiser=optimiser_state,
            ),
            metrics,
        )

    def losses(
        self, state: SorlReleasedState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> dict[str, Float[Array, ""]]:
        """Every loss at the present parameters, without an update."""
        _, td_metrics = self._td_gradient(state, batch, draws, shared.target_steps)
        _, policy_metrics = self._policy_gradient(state.field, state, batch, draws, shared.policy_steps)
        return td_metrics | policy_metrics

    def policy(self, state: SorlReleasedState) -> SorlPolicy:
        """The online field and critic."""
        return SorlPolicy(state.field, state.critic)

    def draw_action(
        self, action_size: int, budget: Budget, *, key: Key[Array, ""]
    ) -> Float[Array, "candidates action"]:
        """Initial noise for each candidate of one decision."""
        return self._sound().draw_action(action_size, budget, key=key)

    def act(
        self,
        policy: SorlPolicy,
        observation: Float[Array, " observation"],
        draws: Float[Array, "candidates action"],
        budget: Budget,
    ) -> Float[Array, " action"]:
        """Samples `budget.candidates` actions and returns the one that the critic values most."""
        return self._sound().act(policy, observation, draws, budget)

    def optimiser(self) -> optax.GradientTransformation:
        """Adam after a global-norm clip, over policy and critic together.

        The released one also spans both targets. Their gradients are zero, so it neither moves them nor changes the
        norm, and leaving them out changes nothing.
        """
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(self.learning_rate))

    def _sound(self) -> Sorl:
        # Only what shapes the program: under jit the other settings are arrays, and nothing shared depends on them.
        return Sorl(
            hidden_sizes=self.hidden_sizes,
            critic_hidden_sizes=self.critic_hidden_sizes,
            critic_heads=self.critic_heads,
            discretization_steps=self.discretization_steps,
            backprop_steps=self.backprop_steps,
            q_aggregation=self.q_aggregation,
            critic_sees_steps=True,
        )

    def _average(self, online: Any, average: Any) -> Any:
        return optax.incremental_update(online, average, self.target_rate)

    def _step(self, gradient: Any, optimiser_state: optax.OptState, networks: Any) -> tuple[Any, optax.OptState]:
        updates, optimiser_state = self.optimiser().update(gradient, optimiser_state, networks)
        return optax.apply_updates(networks, updates), optimiser_state

    def _td_gradient(self, state: SorlReleasedState, batch: Transition, draws: SorlDraws, index: Int[Array, ""]):
        def loss(networks, steps: int):
            field, critic = networks
            next_q = _values(state.target_critic, field, batch.next_observation, draws.target_noise, steps)
            target = critics.td_target(
                batch.reward,
                batch.mask,
                next_q,
                discount=self.discount,
                aggregation=self.q_aggregation,
                stop_gradient=False,
            )
            k = jnp.asarray(float(steps), batch.reward.dtype)
            q = jax.vmap(lambda observation, action: critic(observation, action, k))(batch.observation, batch.action)
            value = critics.td_loss(q, target)
            return value, {"critic_loss": value, "q_mean": jnp.mean(q), "target_q_mean": jnp.mean(target)}

        gradient, metrics = self._switch(index, (state.field, state.critic), loss)
        return gradient, metrics

    def _policy_gradient(
        self,
        field: ShortcutField,
        before: SorlReleasedState,
        batch: Transition,
        draws: SorlDraws,
        index: Int[Array, ""],
    ):
        levels = jnp.asarray(self._sound().consistency_levels(batch.reward.shape[0]), batch.reward.dtype)

        def cloning_loss(field):
            example = batch.observation, batch.action
            flow_matching = shortcut.flow_matching_loss(
                field, *example, draws.flow_noise, draws.flow_time, self.discretization_steps
            )
            self_consistency = shortcut.self_consistency_loss(
                field, before.target_field, *example, draws.consistency_noise, draws.consistency_time, levels
            )
            loss = self.flow_matching_coefficient * flow_matching + self.self_consistency_coefficient * self_consistency
            return loss, {"flow_matching_loss": flow_matching, "self_consistency_loss": self_consistency}

        def q_loss(field, steps: int):
            q = _values(before.critic, field, batch.observation, draws.policy_noise, steps)
            loss = critics.policy_q_loss(q)
            return self.q_coefficient * loss, {"q_loss": loss, "policy_q_mean": jnp.mean(q)}

        (cloning, metrics), gradient = jax.value_and_grad(cloning_loss, has_aux=True)(field)
        q_gradient, q_metrics = self._switch(index, field, q_loss)
        metrics |= q_metrics | {"policy_loss": cloning + self.q_coefficient * q_metrics["q_loss"]}
        return jax.tree.map(jnp.add, gradient, q_gradient), metrics

    def _switch(self, index: Int[Array, ""], networks: Any, loss: Any):
        """Gradient and metrics of `loss(networks, k)` for the drawn k.

        The gradient is taken inside each branch: through the switch it would keep the residuals of every branch.
        """

        def branch(networks, steps: int):
            (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(networks, steps)
            return gradient, metrics

        return jax.lax.switch(index, [lambda n, k=k: branch(n, k) for k in self.step_counts], networks)


def _values(
    critic: CriticEnsemble,
    field: ShortcutField,
    observation: Float[Array, "batch observation"],
    noise: Float[Array, "batch action"],
    steps: int,
) -> Float[Array, "batch heads"]:
    """The critic's values of the actions that `field` makes from `noise` in `steps` jumps."""
    k = jnp.asarray(float(steps), noise.dtype)
    return jax.vmap(lambda x, n: critic(x, shortcut.sample(field, x, n, steps), k))(observation, noise)
