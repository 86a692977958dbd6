"""Acts by denoising with a diffusion model: any number of steps and candidates."""

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
from sorl.functional import diffusion, verifiers
from sorl.networks import NoisePredictor


class DenoisingActor(AbstractActor):
    """Samples candidates by denoising, and chooses the one with the highest Q."""

    width: int = eqx.field(static=True)
    """Width of the model's residual stream, in units."""
    blocks: int = eqx.field(static=True)
    """Number of the model's residual blocks."""
    critic_hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of each critic head's hidden layers, in units."""
    critic_heads: int = eqx.field(static=True)
    """Number of critic heads."""
    denoising_steps: int = eqx.field(static=True)
    """Steps from noise to action; a budget can override it."""
    candidates: int = eqx.field(static=True)
    """N of best-of-N; a budget can override it."""
    q_aggregation: verifiers.Aggregation = eqx.field(static=True)
    """How the critic heads' values are aggregated."""
    most_noise_rate: float
    """beta_max: rate of the noise schedule at time 1."""

    @property
    def budgets(self) -> Budgets:
        """Any number of steps and candidates; evaluations use the agent's own."""
        evaluated = (1,) if self.candidates == 1 else (1, self.candidates)
        return sampling_budgets(self.denoising_steps, self.candidates, evaluated)

    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The model and the critic."""
        sizes = observation_size, action_size

        def make(key):
            return NoisePredictor(*sizes, self.width, self.blocks, key=key)

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
            return diffusion.sample(networks.generator, observation, noise, self.most_noise_rate)

        return choose(candidate, partial(networks.critic, observation), draws, budget, self.q_aggregation)
