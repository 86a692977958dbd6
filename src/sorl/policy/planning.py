"""Which budget to act at when a decision may take so long and no longer."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sorl.agents import Budget
from sorl.agents.actors import AbstractActor
from sorl.agents.budget import of_today
from sorl.functional.verifiers import named
from sorl.statistics.measures import RETURN, SUCCESS, Measure


MARGIN = 1.2
"""What a budget costs is taken this many times before it is held against the limit."""

SCORE_NUMBERS = ("", "_low", "_high")
"""What a score holds beside its `inference_steps` and `candidates`: its `success` in [0, 1], or where that is null its
`return`, and the paired `difference` to one step and one candidate, each with the ends of a 95 % interval."""


class Option(NamedTuple):
    """A budget that could be chosen."""

    budget: Budget
    milliseconds: float
    """What a decision takes, at the 95th percentile."""
    score: Mapping[str, Any] | None
    """How well it does, where that was measured."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The budget chosen for a time limit, and why."""

    budget: Budget
    milliseconds: float
    """What a decision at this budget takes on `device`, at the 95th percentile."""
    limit: float
    """The time that a decision may take, in milliseconds."""
    device: str
    reason: str
    """One sentence."""
    options: tuple[Option, ...]
    """All that was measured."""

    def __str__(self) -> str:
        return self.reason


def checked_scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A copy of the scores.

    Raises a `ValueError`, one sentence, if they are not JSON, if one lacks a number of `SCORE_NUMBERS` or holds
    one that is not finite, if some have a success and others none, or if two are of the same budget.
    """
    try:
        copies = [dict(row) for row in json.loads(json.dumps(list(rows), allow_nan=False))]
    except (TypeError, ValueError) as error:
        raise ValueError(f"The scores are not JSON ({error}); give a list of rows of finite plain numbers.") from error
    budgets = []
    for row in copies:
        budgets.append(score_budget(row))
        name = _measure(row).name
        numbers = [f"{part}{end}" for part in (name, "difference") for end in SCORE_NUMBERS]
        lacking = [number for number in numbers if not isinstance(row.get(number), int | float)]
        if lacking or name == "success" and not 0 <= row["success"] <= 1:
            needed = f"numbers for {', '.join(lacking)}" if lacking else "a success from 0 to 1"
            raise ValueError(f"The score {row} needs {needed}; correct it.")
    if len({_measure(row).name for row in copies}) > 1:
        raise ValueError("Some scores have a success and others only a return; give scores of one environment.")
    if len({_key(budget) for budget in budgets}) < len(budgets):
        raise ValueError(f"The scores name a budget twice: {', '.join(budget.name for budget in budgets)}.")
    return copies


def score_budget(row: Mapping[str, Any]) -> Budget:
    """The budget that a score is about; raises a `ValueError` if it does not say its steps and candidates."""
    if not all(type(row.get(name)) is int for name in ("inference_steps", "candidates")):
        raise ValueError(f"The score {dict(row)} needs whole numbers for inference_steps and candidates; add them.")
    known = [field.name for field in dataclasses.fields(Budget)]
    fields = {name: value for name, value in of_today(row).items() if name in known}
    if fields.get("verifier") is not None:
        fields["verifier"] = named(str(fields["verifier"]))
    return Budget(**fields)


def possible_budgets(actor: AbstractActor, usual: Budget, scores: Sequence[Mapping[str, Any]]) -> list[Budget]:
    """The budgets to choose among: those of the scores, or without scores every trained number of steps.

    Without scores a decision draws one candidate, or as many as the agent's method itself chooses among (IDQL's 32).
    """
    if scores:
        return [score_budget(row) for row in scores]
    return [
        dataclasses.replace(usual, inference_steps=steps, candidates=candidates)
        for steps in actor.budgets.trained_steps
        for candidates in sorted({1, actor.budgets.usual.candidates})
    ]


def choose(options: Sequence[Option], limit: float, device: str) -> Plan:
    """The best-scoring option that fits the limit with the margin; without scores the one with the most steps.

    One that did worse than one step and one candidate (a negative `difference`: best of N can hurt) is passed over
    where another fits. Of equally good ones the cheapest is taken.

    **Arguments:** `options`, all with scores or all without; `limit` in milliseconds; `device`, for the sentence.

    Raises a `ValueError` that names the cheapest option if none fits.
    """
    cheapest = min(options, key=lambda option: option.milliseconds)
    fitting = [option for option in options if MARGIN * option.milliseconds <= limit]
    if not fitting:
        raise ValueError(
            f"Nothing fits {limit:g} ms on {device}: the cheapest of {len(options)} budgets, "
            f"{budget_words(cheapest.budget)}, takes {cheapest.milliseconds:.3g} ms at the 95th percentile; allow at "
            f"least {_up(MARGIN * cheapest.milliseconds)} ms."
        )
    harmless = [option for option in fitting if option.score is None or option.score["difference"] >= 0]
    best = min(harmless or fitting, key=_rank)
    reason = (
        f"{budget_words(best.budget)}: {best.milliseconds:.3g} ms at the 95th percentile on {device}, within {limit:g} "
        f"ms with a margin of {MARGIN:g}; of {len(options)} budgets {len(fitting)} fit, and this is "
        f"{_merit(best, passed_over=len(fitting) - len(harmless) if harmless else 0)}."
    )
    return Plan(best.budget, best.milliseconds, limit, device, reason, tuple(options))


def _measure(score: Mapping[str, Any]) -> Measure:
    """What it is judged by: an explicit null of `success` means that the environment reports none."""
    return RETURN if score.get("success", 0) is None else SUCCESS


def _rank(option: Option) -> tuple[float | int, ...]:
    """Lowest first."""
    if option.score is not None:
        return -option.score[_measure(option.score).name], option.milliseconds
    return -option.budget.inference_steps, -option.budget.candidates


def _merit(option: Option, passed_over: int) -> str:
    score = option.score
    if score is None and option.budget.candidates == 1:
        return (
            "the largest trained number of steps, with one candidate, because best of N lowered success wherever it "
            "was measured with the default settings and this policy carries no scores"
        )
    if score is None:
        return "the largest that its method uses (this policy carries no scores)"
    name = _measure(score).name
    found = f"{name} {score[name]:.3g} ({score[f'{name}_low']:.3g} .. {score[f'{name}_high']:.3g})"
    if score["difference"] < 0:
        return f"the best with {found}, although one step and one candidate did better: no fitting one did not"
    if passed_over:
        return f"the best with {found}, {passed_over} passed over that did worse than one step and one candidate"
    return f"the best with {found}"


def budget_words(budget: Budget) -> str:
    """Its name and, in words, its sizes: `M4N1 (4 steps, one candidate)`."""
    steps, candidates = budget.inference_steps, budget.candidates
    choice = "one candidate" if candidates == 1 else f"best of {candidates}"
    return f"{budget.name} ({steps} step{'s' * (steps > 1)}, {choice})"


def _up(milliseconds: float) -> str:
    """Three digits, rounded up, so that what is named fits."""
    unit = 10.0 ** (math.floor(math.log10(milliseconds)) - 2)
    return f"{math.ceil(milliseconds / unit) * unit:.3g}"


def _key(budget: Budget) -> tuple[Any, ...]:
    return tuple(getattr(budget, field.name) for field in dataclasses.fields(Budget))
