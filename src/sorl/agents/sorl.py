"""SORL: one shortcut policy for every budget, trained by flow matching, self-consistency and a Q loss, beside TD."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from sorl import critics, shortcut
from sorl.agents._agent import AbstractAgent, Budget
from sorl.networks import CriticEnsemble, ShortcutField
from sorl.transitions import Transition


class SorlPolicy(eqx.Module):
    """What acting needs: the field makes candidates, the critic chooses among them."""

    field: ShortcutField
    critic: CriticEnsemble


class SorlState(eqx.Module):
    """Everything that training changes for one seed."""

    field: ShortcutField
    target_field: ShortcutField
    """Moving average of `field`: the teacher of self-consistency."""
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    """Moving average of `critic`: values the next action in the TD target."""
    field_optimiser: optax.OptState
    critic_optimiser: optax.OptState


class SorlDraws(eqx.Module):
    """The random draws of one update that belong to one seed."""

    flow_noise: Float[Array, "*seeds batch action"]
    flow_time: Float[Array, "*seeds batch"]
    """Multiples of 1 / discretization_steps below 1."""
    consistency_noise: Float[Array, "*seeds batch action"]
    consistency_time: Float[Array, "*seeds batch"]
    """Multiples of the row's own step size below 1."""
    policy_noise: Float[Array, "*seeds batch action"]
    """Starts the actions of the Q loss."""
    target_noise: Float[Array, "*seeds batch action"]
    """Starts the next actions of the TD target."""


class SorlSharedDraws(eqx.Module):
    """The jump counts of one update, as indices into `Sorl.step_counts`: they choose which branch runs."""

    policy_steps: Int[Array, ""]
    target_steps: Int[Array, ""]


class Sorl(AbstractAgent):
    """SORL as its formulas say: one optimiser per network, no gradient through the TD target, averages last.

    One update: (1) a critic step towards the TD target; (2) a policy step, whose Q loss asks the critic that step (1)
    just made and whose self-consistency teacher is the moving average from before this update; (3) both moving
    averages, from the updated networks. Source: Espinosa-Dice et al., "Scaling Offline RL via Efficient and
    Expressive Shortcut Models" (NeurIPS 2025).
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
    critic_sees_steps: bool = eqx.field(static=True, default=True)
    """Whether the critic is told how many jumps the acting policy takes."""
    td_gradient_to_policy: bool = eqx.field(static=True, default=False)
    """Whether the TD loss also moves the policy, through the next actions of its target (as the released code does)."""
    learning_rate: float = 1e-4
    """Adam's learning rate, for policy and critic."""
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
    """Weight of the Q loss: small stays near the data, large trusts the critic."""

    def __check_init__(self):
        for name in ("discretization_steps", "backprop_steps"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} is {value}; it counts halvings of the unit interval: give a power of two.")
        if self.discretization_steps < 2:
            raise ValueError(
                f"discretization_steps is {self.discretization_steps}; self-consistency needs two half steps: "
                "give at least 2."
            )
        if self.backprop_steps > self.discretization_steps:
            raise ValueError(
                f"backprop_steps is {self.backprop_steps} but the finest trained grid has {self.discretization_steps} "
                "steps; lower backprop_steps or raise discretization_steps."
            )
        if self.q_aggregation not in ("mean", "min"):
            raise ValueError(f"q_aggregation is {self.q_aggregation!r}; give 'mean' or 'min'.")
        if self.critic_heads < 1 or not self.hidden_sizes or not self.critic_hidden_sizes:
            raise ValueError(
                f"critic_heads is {self.critic_heads}, hidden_sizes {self.hidden_sizes} and critic_hidden_sizes "
                f"{self.critic_hidden_sizes}; give at least one head and one hidden layer each."
            )

    @property
    def step_counts(self) -> tuple[int, ...]:
        """The jump counts that the Q loss and the TD target draw from: 1, 2, 4, .., M^BTT."""
        return tuple(2**level for level in range(self.backprop_steps.bit_length()))

    def init(self, observation_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlState:
        """Fresh networks, moving averages equal to them, and empty optimisers."""
        field_key, critic_key = jax.random.split(key)
        field = ShortcutField(observation_size, action_size, self.hidden_sizes, key=field_key)
        critic = CriticEnsemble(
            observation_size,
            action_size,
            self.critic_hidden_sizes,
            heads=self.critic_heads,
            sees_steps=self.critic_sees_steps,
            key=critic_key,
        )
        optimiser = self.optimiser()
        # The targets are copies: donating a state that holds one buffer twice is an error.
        return SorlState(
            field=field,
            target_field=jax.tree.map(jnp.copy, field),
            critic=critic,
            target_critic=jax.tree.map(jnp.copy, critic),
            field_optimiser=optimiser.init(field),
            critic_optimiser=optimiser.init(critic),
        )

    def draw(self, batch_size: int, action_size: int, *, key: Key[Array, ""]) -> SorlDraws:
        """Noise and times of one update for a batch of `batch_size` transitions."""
        noise_key, flow_key, consistency_key = jax.random.split(key, 3)
        flow, consistency, policy, target = jax.random.normal(noise_key, (4, batch_size, action_size))
        grid = 2.0 ** self.consistency_levels(batch_size)
        return SorlDraws(
            flow_noise=flow,
            flow_time=_grid_time(jnp.full(batch_size, float(self.discretization_steps)), key=flow_key),
            consistency_noise=consistency,
            consistency_time=_grid_time(jnp.asarray(grid, flow.dtype), key=consistency_key),
            policy_noise=policy,
            target_noise=target,
        )

    def draw_shared(self, *, key: Key[Array, ""]) -> SorlSharedDraws:
        """One jump count for the Q loss and one for the TD target, uniform over `step_counts`."""
        policy_steps, target_steps = jax.random.randint(key, (2,), 0, len(self.step_counts))
        return SorlSharedDraws(policy_steps, target_steps)

    def consistency_levels(self, batch_size: int) -> np.ndarray:
        """log2 of the number of steps that each batch row's self-consistency step stands for: finest first.

        Rows are split evenly over the steps 1 / 2, 1 / 4, .., coarser than the finest; the remainder goes to 1.
        """
        levels = int(math.log2(self.discretization_steps))
        rows = np.repeat(np.arange(levels - 1, -1, -1), batch_size // levels)
        return np.concatenate([rows, np.zeros(batch_size - len(rows), rows.dtype)]).astype(np.float32)

    def update(
        self, state: SorlState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> tuple[SorlState, dict[str, Float[Array, ""]]]:
        """One critic step, one policy step, and the moving averages, in this order."""
        optimiser = self.optimiser()
        critic_gradient, td_gradient, critic_metrics = self._critic_gradient(state, batch, draws, shared.target_steps)
        critic, critic_optimiser = _apply(optimiser, critic_gradient, state.critic_optimiser, state.critic)

        gradient, policy_metrics = self._policy_gradient(state, critic, batch, draws, shared.policy_steps)
        if td_gradient is not None:
            gradient = jax.tree.map(jnp.add, gradient, td_gradient)
            critic_metrics["td_policy_grad_norm"] = optax.tree.norm(td_gradient)
        field, field_optimiser = _apply(optimiser, gradient, state.field_optimiser, state.field)

        metrics = critic_metrics | policy_metrics
        metrics["critic_grad_norm"] = optax.tree.norm(critic_gradient)
        metrics["policy_grad_norm"] = optax.tree.norm(gradient)
        return (
            SorlState(
                field=field,
                target_field=optax.incremental_update(field, state.target_field, self.target_rate),
                critic=critic,
                target_critic=optax.incremental_update(critic, state.target_critic, self.target_rate),
                field_optimiser=field_optimiser,
                critic_optimiser=critic_optimiser,
            ),
            metrics,
        )

    def losses(
        self, state: SorlState, batch: Transition, draws: SorlDraws, shared: SorlSharedDraws
    ) -> dict[str, Float[Array, ""]]:
        """Every loss at the present parameters, without an update."""
        _, _, critic_metrics = self._critic_gradient(state, batch, draws, shared.target_steps)
        _, policy_metrics = self._policy_gradient(state, state.critic, batch, draws, shared.policy_steps)
        return critic_metrics | policy_metrics

    def policy(self, state: SorlState) -> SorlPolicy:
        """The online field and critic."""
        return SorlPolicy(state.field, state.critic)

    def draw_action(
        self, action_size: int, budget: Budget, *, key: Key[Array, ""]
    ) -> Float[Array, "candidates action"]:
        """Initial noise for each candidate of one decision."""
        return jax.random.normal(key, (budget.candidates, action_size))

    def act(
        self,
        policy: SorlPolicy,
        observation: Float[Array, " observation"],
        draws: Float[Array, "candidates action"],
        budget: Budget,
    ) -> Float[Array, " action"]:
        """Samples `budget.candidates` actions and returns the one that the critic values most."""
        conditioning = budget.policy_conditioning or self.conditioning(budget.inference_steps)
        candidates = jax.vmap(
            lambda noise: shortcut.sample(
                policy.field, observation, noise, budget.inference_steps, conditioning=conditioning
            )
        )(budget.noise_scale * draws)
        if budget.candidates == 1:
            return candidates[0]
        steps = jnp.asarray(budget.critic_conditioning or self.critic_conditioning(budget.inference_steps), draws.dtype)
        q = jax.vmap(lambda action: policy.critic(observation, action, steps))(candidates)
        return critics.best_of_n(candidates, q, self.q_aggregation)[0]

    def conditioning(self, inference_steps: int) -> int:
        """The step count shown to the policy: the largest that self-consistency or flow matching trained, not above."""
        return min(2 ** (inference_steps.bit_length() - 1), self.discretization_steps)

    def critic_conditioning(self, inference_steps: int) -> int:
        """The step count shown to the critic: the largest that TD trained, not above."""
        return min(2 ** (inference_steps.bit_length() - 1), self.backprop_steps)

    def optimiser(self) -> optax.GradientTransformation:
        """Adam after a global-norm clip; each network has its own state of it."""
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(self.learning_rate))

    def _queries(self, teacher: ShortcutField, batch: Transition, draws: SorlDraws) -> shortcut.Query:
        """The batch's flow-matching queries, then its self-consistency queries."""
        levels = jnp.asarray(self.consistency_levels(batch.reward.shape[0]), batch.reward.dtype)
        flow_matching = jax.vmap(lambda *example: shortcut.flow_matching_query(*example, self.discretization_steps))(
            batch.observation, batch.action, draws.flow_noise, draws.flow_time
        )
        self_consistency = jax.vmap(lambda *example: shortcut.self_consistency_query(teacher, *example))(
            batch.observation, batch.action, draws.consistency_noise, draws.consistency_time, levels
        )
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), flow_matching, self_consistency)

    def _critic_gradient(self, state: SorlState, batch: Transition, draws: SorlDraws, index: Int[Array, ""]):
        def loss(networks, steps: int):
            critic, field = networks
            k = jnp.asarray(float(steps))
            next_q = jax.vmap(
                lambda observation, noise: state.target_critic(
                    observation, shortcut.sample(field, observation, noise, steps), k
                )
            )(batch.next_observation, draws.target_noise)
            target = critics.td_target(
                batch.reward,
                batch.mask,
                next_q,
                discount=self.discount,
                aggregation=self.q_aggregation,
                stop_gradient=not self.td_gradient_to_policy,
            )
            q = jax.vmap(lambda observation, action: critic(observation, action, k))(batch.observation, batch.action)
            value = critics.td_loss(q, target)
            return value, {"critic_loss": value, "q_mean": jnp.mean(q), "target_q_mean": jnp.mean(target)}

        if self.td_gradient_to_policy:

            def branch(steps):
                (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)((state.critic, state.field), steps)
                return *gradient, metrics
        else:

            def branch(steps):
                def critic_loss(critic):
                    return loss((critic, state.field), steps)

                (_, metrics), gradient = jax.value_and_grad(critic_loss, has_aux=True)(state.critic)
                return gradient, None, metrics

        return _switch(index, self.step_counts, branch)

    def _policy_gradient(
        self, state: SorlState, critic: CriticEnsemble, batch: Transition, draws: SorlDraws, index: Int[Array, ""]
    ):
        # One forward for all rows that share the field's weights.
        queries = self._queries(state.target_field, batch, draws)

        def cloning_loss(field):
            errors = jax.vmap(lambda query: shortcut.query_loss(field, query))(queries)
            flow_matching, self_consistency = jnp.mean(errors.reshape(2, -1), axis=1)
            loss = self.flow_matching_coefficient * flow_matching + self.self_consistency_coefficient * self_consistency
            return loss, {"flow_matching_loss": flow_matching, "self_consistency_loss": self_consistency}

        def q_loss(field, steps: int):
            k = jnp.asarray(float(steps))
            q = jax.vmap(
                lambda observation, noise: critic(observation, shortcut.sample(field, observation, noise, steps), k)
            )(batch.observation, draws.policy_noise)
            loss = critics.policy_q_loss(q)
            return self.q_coefficient * loss, {"q_loss": loss, "policy_q_mean": jnp.mean(q)}

        # The gradient is taken inside each branch: through the switch it would keep the residuals of every branch.
        (q_value, q_metrics), q_gradient = _switch(
            index, self.step_counts, lambda steps: jax.value_and_grad(q_loss, has_aux=True)(state.field, steps)
        )
        (cloning, metrics), gradient = jax.value_and_grad(cloning_loss, has_aux=True)(state.field)
        metrics |= q_metrics | {"policy_loss": cloning + q_value}
        return jax.tree.map(jnp.add, gradient, q_gradient), metrics


def _grid_time(steps: Float[Array, " batch"], *, key: Key[Array, ""]) -> Float[Array, " batch"]:
    """Uniform on {0, 1 / steps, .., 1 - 1 / steps}, for each row's own number of steps."""
    return jnp.floor(jax.random.uniform(key, steps.shape) * steps) / steps


def _switch(index: Int[Array, ""], choices: tuple[int, ...], branch: Any):
    """`branch(choices[index])`, compiled once for each choice, one of which runs."""
    if len(choices) == 1:
        return branch(choices[0])
    return jax.lax.switch(index, [lambda _, choice=choice: branch(choice) for choice in choices], None)


def _apply(optimiser: optax.GradientTransformation, gradient: Any, state: optax.OptState, network: Any):
    updates, state = optimiser.update(gradient, state, network)
    return optax.apply_updates(network, updates), state
