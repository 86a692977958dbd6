"""How a decision is made, whatever its number of steps and candidates: options that several command lines share."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from sorl.agents import AbstractAgent, Budget


@dataclasses.dataclass(frozen=True)
class DecisionOptions:
    """The options of a decision beside the two sizes of its budget; see `sorl.agents.Budget` for when each helps."""

    noise_scale: float | None = None
    """Scale of the policy's noise; 1 as trained, 0 for the deterministic path; by default the agent's own."""
    q_aggregation: Literal["mean", "min"] | None = None
    """How critic heads become the value that candidates are judged by; by default as in the agent's targets."""
    softmax_temperature: float = 0.0
    """0 takes the best candidate; above 0 candidates are drawn with weights exp(Q / temperature), in units of Q."""
    policy_conditioning: int | Literal["exact"] | None = None
    """Number of steps shown to the policy, or exactly the inference steps; by default the largest trained one not above
    them."""
    critic_conditioning: int | Literal["exact"] | None = None
    """Number of steps shown to the critic, or exactly the inference steps; by default the largest trained one not above
    them."""

    def budgets(
        self, agent: AbstractAgent, inference_steps: Sequence[int] | None, candidates: Sequence[int] | None
    ) -> list[Budget]:
        """Every pair of the two, or of what stands in for None: the agent's own.

        Raises a `ValueError`, one sentence, for a budget that cannot act, or that the agent cannot act on.
        """
        own = agent.budgets
        noise_scale = own.usual.noise_scale if self.noise_scale is None else self.noise_scale
        usual = dataclasses.replace(
            own.usual,
            noise_scale=noise_scale,
            q_aggregation=self.q_aggregation,
            softmax_temperature=self.softmax_temperature,
        )
        grid = own._replace(usual=usual).grid(inference_steps, candidates, final=True)
        return [self._conditioned(budget) for budget in grid]

    def _conditioned(self, budget: Budget) -> Budget:
        asked = {name: getattr(self, name) for name in ("policy_conditioning", "critic_conditioning")}
        exact = {name: budget.inference_steps if value == "exact" else value for name, value in asked.items()}
        return dataclasses.replace(budget, **{name: value for name, value in exact.items() if value is not None})
