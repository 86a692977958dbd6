"""Acts by integrating a flow: any number of Euler steps and candidates."""

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
from sorl.functional import flows, verifiers
from sorl.networks import VelocityField


class FlowActor(AbstractActor):
    """Samples candidates by Euler steps of a flow, and chooses the one with the highest Q."""

    hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of the flow's hidden layers, in units."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True)
    """Number of critic heads."""
    flow_steps: int = eqx.field(static=True)
    """Number of Euler steps; a budget can override it."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True)
    """How the critic heads' values are aggregated."""
    candidates: int = eqx.field(static=True, default=1)
    """N of best-of-N; a budget can override it."""
    chunk: int = eqx.field(static=True, default=1)
    """Number of actions per decision."""

    @property
    def budgets(self) -> Budgets:
        """Any number of Euler steps and candidates; evaluations use `flow_steps`, with 1 and `candidates` (or 8)."""
        evaluated = (1, self.candidates if self.candidates > 1 else 8)
        return sampling_budgets(self.flow_steps, self.candidates, evaluated)

    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The flow and the critic."""
        sizes = observation_size, action_size

        def make(key):
            return VelocityField(*sizes, self.hidden_sizes, key=key)

        return template_with_critic(make, *sizes, self.critic_hidden_sizes, heads=self.critic_heads)

    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> CandidateDraws:
        """Initial noise for each candidate of one decision."""
        return draw_candidates((action_size,), budget, key=key)

    def act(
        self,
        networks: GeneratorAndCritic,
        observation: Float[Array, " observation"],
        draws: CandidateDraws,
        budget: Budget,
    ) -> Float[Array, " action"]:
        """Samples `budget.candidates` actions and returns the one with the highest Q."""

        def candidate(noise):
            return flows.sample(networks.generator, observation, noise, budget.inference_steps)

        return choose(candidate, partial(networks.critic, observation), draws, budget, self.q_aggregation)
