"""Acts by jumps of a shortcut field: any number of jumps and candidates."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents.actors.choice import (
    CandidateDraws,
    GeneratorAndCritic,
    SoftmaxDraws,
    choose,
    draw_candidates,
    template_with_critic,
)
from sorl.agents.actors.interface import AbstractActor
from sorl.agents.budget import Budget, Budgets
from sorl.functional import shortcut, verifiers
from sorl.networks import ShortcutField


class ShortcutActor(AbstractActor):
    """Samples candidates by jumps of a shortcut field, and chooses the one with the highest Q."""

    hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of the field's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True)
    """Number of critic heads."""
    discretization_steps: int = eqx.field(static=True)
    """M^disc: steps of the finest grid that the field was trained on, a power of two."""
    backprop_steps: int = eqx.field(static=True)
    """M^BTT: the largest number of jumps in the training of the critic, a power of two."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True)
    """How the critic heads' values are aggregated; a budget's verifier overrides it."""
    critic_sees_steps: bool = eqx.field(static=True, default=True)
    """Whether the number of jumps is an input of the critic."""
    chunk: int = eqx.field(static=True, default=1)
    """Number of actions per decision."""

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

    @property
    def budgets(self) -> Budgets:
        """Any number of jumps and candidates; evaluations use 1, 2, 4 and 8 jumps, even if fewer were trained.

        The usual number of jumps is 4, or the largest trained number if that is less.
        """
        return Budgets(
            usual=Budget(inference_steps=min(4, self.discretization_steps)),
            inference_steps=(1, 2, 4, 8),
            candidates=(1, 8),
            trained_steps=step_counts(self.discretization_steps),
            other_inference_steps=True,
            other_candidates=True,
            other_verifiers=True,
            candidates_because="best of N lowered success on cube-single with the default settings",
        )

    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The field and the critic."""
        sizes = observation_size, action_size

        def make(key):
            return ShortcutField(*sizes, self.hidden_sizes, key=key)

        return template_with_critic(
            make, *sizes, self.critic_hidden_sizes, heads=self.critic_heads, sees_steps=self.critic_sees_steps
        )

    def critic_steps(self, budget: Budget) -> int:
        """The number of jumps that the critic sees at a budget."""
        return budget.critic_conditioning or largest_trained(budget.inference_steps, self.backprop_steps)

    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> CandidateDraws:
        """Initial noise for each candidate of one decision, and Gumbel noise if the choice is random."""
        return draw_candidates((action_size,), budget, key=key)

    def act(
        self,
        networks: GeneratorAndCritic,
        observation: Float[Array, " observation"],
        draws: CandidateDraws,
        budget: Budget,
    ) -> Float[Array, " action"]:
        """Samples `budget.candidates` actions and returns one of them, chosen by the budget's verifier."""
        steps = budget.inference_steps
        policy_steps = budget.policy_conditioning or largest_trained(steps, self.discretization_steps)
        dtype = (draws.noise if isinstance(draws, SoftmaxDraws) else draws).dtype
        critic_steps = jnp.asarray(self.critic_steps(budget), dtype)

        def candidate(noise):
            return shortcut.sample(networks.generator, observation, noise, steps, conditioning=policy_steps)

        def value(action):
            return networks.critic(observation, action, critic_steps)

        return choose(candidate, value, draws, budget, self.q_aggregation)


def step_counts(most: int) -> tuple[int, ...]:
    """The powers of two 1, 2, 4, .., `most`."""
    return tuple(2**level for level in range(most.bit_length()))


def largest_trained(steps: int, most: int) -> int:
    """The largest power of two that is at most `steps` and at most `most`."""
    return min(2 ** (steps.bit_length() - 1), most)
