"""Options of several command lines for the parts of a budget other than steps and candidates."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from sorl.agents import Budget, Budgets
from sorl.functional.verifiers import named


@dataclasses.dataclass(frozen=True)
class DecisionOptions:
    """How a decision is made at any number of steps and candidates; see `sorl.agents.Budget`."""

    noise_scale: float | None = None
    """Factor on the policy's noise: 1 as trained, 0 for the deterministic path; default: the agent's own."""
    verifier: str | None = None
    """How the critic heads' values choose a candidate: by their mean or min, by their mean minus a number of standard
    deviations (lower-bound1), by a draw with weights exp(Q / temperature), in units of Q (softmax0.5), or by a
    combination (min-softmax0.5); default: the highest value by the aggregation of the agent's own TD target."""
    policy_conditioning: int | Literal["exact"] | None = None
    """Number of steps that the policy is conditioned on: a number, or exact for the number of inference steps; default:
    the largest trained number that is not above it."""
    critic_conditioning: int | Literal["exact"] | None = None
    """Number of steps that the critic is conditioned on: a number, or exact for the number of inference steps; default:
    the largest trained number that is not above it."""

    def __post_init__(self):
        if self.verifier is not None:
            named(self.verifier)

    def budgets(
        self, own: Budgets, inference_steps: Sequence[int] | None, candidates: Sequence[int] | None
    ) -> list[Budget]:
        """All combinations of inference steps and candidates; None means the defaults of `own`, an actor's budgets.

        Raises a `ValueError`, one sentence, for a budget that is invalid or that the agent does not support.
        """
        noise_scale = own.usual.noise_scale if self.noise_scale is None else self.noise_scale
        usual = dataclasses.replace(
            own.usual, noise_scale=noise_scale, verifier=None if self.verifier is None else named(self.verifier)
        )
        grid = own._replace(usual=usual).grid(inference_steps, candidates, final=True)
        return [self._conditioned(budget) for budget in grid]

    def _conditioned(self, budget: Budget) -> Budget:
        asked = {name: getattr(self, name) for name in ("policy_conditioning", "critic_conditioning")}
        exact = {name: budget.inference_steps if value == "exact" else value for name, value in asked.items()}
        return dataclasses.replace(budget, **{name: value for name, value in exact.items() if value is not None})
