"""Acts by one pass of a network from noise to action: one step, any number of candidates."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents.actors.choice import CandidateDraws, GeneratorAndCritic, choose, draw_candidates, template_with_critic
from sorl.agents.actors.interface import AbstractActor
from sorl.agents.budget import Budget, Budgets
from sorl.functional import verifiers
from sorl.networks import OneStepField


class OneStepActor(AbstractActor):
    """Computes each candidate from noise in one forward pass, and chooses the one with the highest Q."""

    hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of the hidden layers of the one-step policy, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True)
    """Number of critic heads."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True)
    """How the critic heads' values are aggregated."""
    chunk: int = eqx.field(static=True, default=1)
    """Number of actions per decision."""

    @property
    def budgets(self) -> Budgets:
        """One step, and any number of candidates."""
        return Budgets(
            Budget(1), (1,), (1, 8), (1,), other_inference_steps=False, other_candidates=True, other_verifiers=True
        )

    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The one-step policy and the critic."""
        sizes = observation_size, action_size

        def make(key):
            return OneStepField(*sizes, self.hidden_sizes, key=key)

        return template_with_critic(make, *sizes, self.critic_hidden_sizes, heads=self.critic_heads)

    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> CandidateDraws:
        """Noise for each candidate of one decision."""
        return draw_candidates((action_size,), budget, key=key)

    def act(
        self,
        networks: GeneratorAndCritic,
        observation: Float[Array, " observation"],
        draws: CandidateDraws,
        budget: Budget,
    ) -> Float[Array, " action"]:
        """Computes `budget.candidates` actions in one forward pass each and returns the one with the highest Q."""

        def candidate(noise):
            return jnp.clip(networks.generator(observation, noise), -1.0, 1.0)

        return choose(candidate, partial(networks.critic, observation), draws, budget, self.q_aggregation)
