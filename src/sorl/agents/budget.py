"""Budgets: the compute of one decision, and the budgets that an agent supports."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx

from sorl.agents.shared.settings import MAX_CANDIDATES, MAX_STEPS
from sorl.functional.verifiers import AbstractVerifier, Softmax
from sorl.system.ranges import MAX_NUMBER, refuse_outside


BUDGET_TYPES = {
    "inference_steps": (int,),
    "candidates": (int,),
    "policy_conditioning": (int, type(None)),
    "critic_conditioning": (int, type(None)),
    "noise_scale": (float, int),
}
"""The allowed types of each field of a `Budget`."""


class Budget(eqx.Module):
    """The compute of one decision; its fields are static, so that each budget is one compiled program."""

    inference_steps: int = eqx.field(static=True, default=4)
    """Sequential budget M^inf: jumps or integration steps from noise to action, >= 1; 1 for a policy without steps."""
    candidates: int = eqx.field(static=True, default=1)
    """Parallel budget N, >= 1: number of sampled actions; the one with the highest aggregated Q is executed.

    With the published and the quickstart's settings, best of N lowered SORL's success on cube-single at every budget;
    `sorl.scaling` measures it with paired differences.
    """
    noise_scale: float = eqx.field(static=True, default=1.0)
    """Temperature: scale of the policy's noise; 1 is the policy as trained, 0 its deterministic path.

    Values below 1 help if a task tolerates less noise than the data contain; at 0 all candidates are the same.
    """
    policy_conditioning: int | None = eqx.field(static=True, default=None)
    """Number of steps shown to the policy; None: the largest trained count not above `inference_steps`."""
    critic_conditioning: int | None = eqx.field(static=True, default=None)
    """Number of steps shown to the critic; None: the largest trained count not above `inference_steps`."""
    verifier: AbstractVerifier | None = eqx.field(static=True, default=None)
    """How the critic heads' values choose a candidate; None: the highest value by the agent's own aggregation.

    `Min()` or `LowerBound(k)` help if best of N lowers success: they avoid actions that a single head over-estimates.
    `Mean()` helps if the heads differ mostly by noise, which it averages out. `Softmax(T)` helps if the candidates'
    values differ by less than the critic's error.
    """

    def __check_init__(self):
        # 2.0 == 2, so a budget with 2.0 would use the compiled program of 2 if it is cached, and fail if it is not.
        for name, kinds in BUDGET_TYPES.items():
            if type(getattr(self, name)) not in kinds:
                expected = "a number" if float in kinds else "a whole number"
                raise ValueError(f"{name} is {getattr(self, name)!r}; give {expected}.")
        if self.inference_steps < 1 or self.candidates < 1:
            raise ValueError(
                f"A budget of {self.inference_steps} inference steps and {self.candidates} candidates cannot act; "
                "give at least 1 of each."
            )
        refuse_outside(
            self,
            inference_steps=(1, MAX_STEPS),
            candidates=(1, MAX_CANDIDATES),
            policy_conditioning=(1, MAX_STEPS),
            critic_conditioning=(1, MAX_STEPS),
            noise_scale=(0.0, MAX_NUMBER),
        )
        if not isinstance(self.verifier, AbstractVerifier | None):
            raise ValueError(f"verifier is {self.verifier!r}; give one of sorl.functional.verifiers, or None.")

    @property
    def name(self) -> str:
        """Short name: the sizes, such as `M4N8` for four jumps and best of eight, and the verifier if there is one."""
        verifier = "" if self.verifier is None else f"-{self.verifier.name}"
        return f"M{self.inference_steps}N{self.candidates}{verifier}"

    @property
    def chooses_by_softmax(self) -> bool:
        """Whether the choice among the candidates is random."""
        return self.candidates > 1 and isinstance(self.verifier, Softmax)


def of_today(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a budget's JSON fields from sorl 0.1.0 to today's, which have one `verifier`.

    Version 0.1.0 had two fields: `q_aggregation` (None, mean or min) and `softmax_temperature` (0: no random choice).
    """
    if not {"q_aggregation", "softmax_temperature"} & fields.keys():
        return dict(fields)
    kept = {name: value for name, value in fields.items() if name not in ("q_aggregation", "softmax_temperature")}
    aggregation, temperature = fields.get("q_aggregation"), fields.get("softmax_temperature", 0.0)
    names = [] if aggregation is None else [str(aggregation)]
    names += [] if temperature == 0 else [f"softmax{temperature!r}"]
    return {"verifier": "-".join(names) or None} | kept


class Budgets(NamedTuple):
    """The compute budgets that an agent supports."""

    usual: Budget
    """The default budget; all budgets of an evaluation use its noise scale and conditioning."""
    inference_steps: tuple[int, ...]
    """Default sequential budgets M^inf of an evaluation; (1,) for a policy without steps."""
    candidates: tuple[int, ...]
    """Default parallel budgets N of the table after training; (1,) for an agent without a critic."""
    trained_steps: tuple[int, ...]
    """The numbers of steps used in training, ascending; other numbers are extrapolation."""
    other_inference_steps: bool
    """Whether it also supports numbers of steps that are not in `inference_steps`."""
    other_candidates: bool
    """Whether it also supports numbers of candidates that are not in `candidates`."""
    other_verifiers: bool = False
    """Whether it uses a budget's `verifier`."""
    candidates_because: str = ""
    """The measured reason for the usual number of candidates, such as "best of N lowered success"; empty: none."""

    def grid(
        self, inference_steps: Sequence[int] | None, candidates: Sequence[int] | None, *, final: bool
    ) -> list[Budget]:
        """All combinations of inference steps and candidates; None means the agent's defaults.

        By default, the `final` table has all numbers in `candidates`, and evaluations during training have only the
        usual one. During training the usual number of steps comes first by default, because scores are read at the
        first budget. Raises a `ValueError`, one sentence, for no number, one that is given twice, or one that the agent
        does not support.
        """
        steps = self.inference_steps if inference_steps is None else inference_steps
        for name, asked in (("inference steps", inference_steps), ("candidates", candidates)):
            if asked is not None and not asked:
                raise ValueError(f"No number of {name} is given; give at least one.")
            if asked is not None and len(set(asked)) < len(asked):
                raise ValueError(f"The numbers of {name} are {' '.join(map(str, asked))}; give each once.")
        own = self.candidates if final else (self.usual.candidates,)
        if inference_steps is None and not final:
            steps = sorted(steps, key=lambda number: number != self.usual.inference_steps)
        budgets = [
            dataclasses.replace(self.usual, inference_steps=m, candidates=n)
            for n in (own if candidates is None else candidates)
            for m in steps
        ]
        for budget in budgets:
            self.refuse(budget)
        return budgets

    def refuse(self, budget: Budget) -> None:
        """Raises a `ValueError`, one sentence, for a budget that the agent does not support."""
        for name, title in (("inference_steps", "inference steps"), ("candidates", "candidates")):
            asked, possible = getattr(budget, name), getattr(self, name)
            if asked not in possible and not getattr(self, f"other_{name}"):
                allowed = " or ".join(map(str, possible))
                raise ValueError(f"This agent cannot act with {asked} {title}; give {allowed}.")
        if budget.verifier is not None and not self.other_verifiers:
            raise ValueError("This agent does not choose among candidates; omit the verifier.")


ONE_PASS = Budgets(
    usual=Budget(inference_steps=1, noise_scale=0.0),
    inference_steps=(1,),
    candidates=(1,),
    trained_steps=(1,),
    other_inference_steps=False,
    other_candidates=False,
)
"""The budgets of a policy that acts by one forward pass; its action is the mean unless a noise scale is given."""
