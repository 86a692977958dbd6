"""Acts by a consistency model: any number of steps and candidates."""

from functools import partial

import equinox as eqx
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents.actors.choice import (
    CandidateDraws,
    GeneratorAndCritic,
    choose,
    draw_candidates,
    sampling_budgets,
    template_with_critic,
)
from sorl.agents.actors.interface import AbstractActor
from sorl.agents.budget import Budget, Budgets
from sorl.functional import consistency, verifiers
from sorl.networks import ConsistencyNetwork


class ConsistencyActor(AbstractActor):
    """Samples candidates by steps of a consistency model, and chooses the one with the highest Q."""

    hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of the network's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True)
    """Number of critic heads."""
    sampling_steps: int = eqx.field(static=True)
    """Steps from noise to action; a budget can override it."""
    candidates: int = eqx.field(static=True)
    """N of best-of-N; a budget can override it."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True)
    """How the critic heads' values are aggregated."""

    @property
    def budgets(self) -> Budgets:
        """Any number of steps and candidates; evaluations use the agent's own."""
        evaluated = (1,) if self.candidates == 1 else (1, self.candidates)
        return sampling_budgets(self.sampling_steps, self.candidates, evaluated)

    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The network and the critic."""
        sizes = observation_size, action_size

        def make(key):
            return ConsistencyNetwork(*sizes, self.hidden_sizes, key=key)

        return template_with_critic(make, *sizes, self.critic_hidden_sizes, heads=self.critic_heads)

    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> CandidateDraws:
        """Noise for each step of each candidate of one decision."""
        return draw_candidates((budget.inference_steps, action_size), budget, key=key)

    def act(
        self,
        networks: GeneratorAndCritic,
        observation: Float[Array, " observation"],
        draws: CandidateDraws,
        budget: Budget,
    ) -> Float[Array, " action"]:
        """Samples `budget.candidates` actions and returns the one with the highest Q."""

        def candidate(noise):
            return consistency.sample(networks.generator, observation, noise)

        return choose(candidate, partial(networks.critic, observation), draws, budget, self.q_aggregation)
