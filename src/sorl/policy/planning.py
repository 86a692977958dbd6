"""Chooses the budget for a time limit per decision."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sorl.agents import Budget, Budgets
from sorl.agents.actors import AbstractActor
from sorl.agents.budget import of_today
from sorl.functional.verifiers import named
from sorl.statistics.measures import RETURN, SUCCESS, Measure


MARGIN = 1.2
"""A budget fits if its latency times this factor is within the limit."""

SCORE_NUMBERS = ("", "_low", "_high")
"""Suffixes of a score's numbers: its mean and the ends of its 95 % interval. A score has them for `success` in [0, 1]
(or, if that is null, for `return`) and for `difference`, the paired difference to one step and one candidate."""


class Option(NamedTuple):
    """A candidate budget with its latency and score."""

    budget: Budget
    milliseconds: float
    """Latency of a decision, 95th percentile."""
    score: Mapping[str, Any] | None
    """The measured score, or None."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The budget chosen for a time limit, and the reason."""

    budget: Budget
    milliseconds: float
    """Latency of a decision at this budget on `device`, 95th percentile."""
    limit: float
    """The time limit of a decision in milliseconds."""
    device: str
    reason: str
    """The reason for the choice, in one sentence."""
    options: tuple[Option, ...]
    """All measured budgets."""

    def __str__(self) -> str:
        return self.reason


def checked_scores(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Checks the scores and returns a copy.

    Raises a `ValueError`, one sentence, if they are not JSON-able, if a number of `SCORE_NUMBERS` is missing or not
    finite, if only some have a success, or if two have the same budget.
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
    if len({*budgets}) < len(budgets):
        raise ValueError(f"The scores name a budget twice: {', '.join(budget.name for budget in budgets)}.")
    return copies


def score_budget(row: Mapping[str, Any]) -> Budget:
    """The budget of a score; raises a `ValueError` if the score lacks the numbers of steps and candidates."""
    if not all(type(row.get(name)) is int for name in ("inference_steps", "candidates")):
        raise ValueError(f"The score {dict(row)} needs whole numbers for inference_steps and candidates; add them.")
    known = [field.name for field in dataclasses.fields(Budget)]
    fields = {name: value for name, value in of_today(row).items() if name in known}
    if fields.get("verifier") is not None:
        fields["verifier"] = named(str(fields["verifier"]))
    return Budget(**fields)


def possible_budgets(actor: AbstractActor, usual: Budget, scores: Sequence[Mapping[str, Any]]) -> list[Budget]:
    """The budgets to choose from: those of the scores, or, without scores, every trained number of steps.

    Without scores, the actor's usual number of steps is among them too, and a decision uses one candidate, or the
    number of candidates that is part of the method (IDQL's 32).
    """
    if scores:
        return [score_budget(row) for row in scores]
    return [
        dataclasses.replace(usual, inference_steps=steps, candidates=candidates)
        for steps in sorted({*actor.budgets.trained_steps, actor.budgets.usual.inference_steps})
        for candidates in sorted({1, actor.budgets.usual.candidates})
    ]


def refuse_limit(milliseconds: float) -> None:
    """Raises a `ValueError`, one sentence, for a time limit that is not a positive number of milliseconds."""
    if not 0 < milliseconds < math.inf:
        raise ValueError(f"The limit is {milliseconds} ms; give a finite time above 0.")


def choose(options: Sequence[Option], limit: float, device: str, own: Budgets) -> Plan:
    """The option with the best score that fits the limit with the margin.

    An option with a negative `difference` (worse than one step and one candidate, since best of N can hurt) is chosen
    only if no other one fits. Among equally good options the cheapest is chosen. Without scores, it is the option with
    the most candidates and, among these, the most steps: a method that acts with the best of N is worse with one.

    **Arguments:** `options`, all with scores or all without; `limit` in milliseconds; `device` and `own`,
    the actor's budgets, for the text.

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
    # Prefer options that are not worse than one step and one candidate.
    harmless = [option for option in fitting if option.score is None or option.score["difference"] >= 0]
    best = min(harmless or fitting, key=_rank)
    reason = (
        f"{budget_words(best.budget)}: {best.milliseconds:.3g} ms at the 95th percentile on {device}, within {limit:g} "
        f"ms with a margin of {MARGIN:g}; of {len(options)} budgets {len(fitting)} fit, and this is "
        f"{_merit(best, options, own, passed_over=len(fitting) - len(harmless) if harmless else 0)}."
    )
    return Plan(best.budget, best.milliseconds, limit, device, reason, tuple(options))


def _measure(score: Mapping[str, Any]) -> Measure:
    """The measure of a score: the return if `success` is explicitly null, else success."""
    return RETURN if score.get("success", 0) is None else SUCCESS


def _rank(option: Option) -> tuple[float | int, ...]:
    """Sort key of an option; the lowest is the best."""
    if option.score is not None:
        return -option.score[_measure(option.score).name], option.milliseconds
    return -option.budget.candidates, -option.budget.inference_steps


def _merit(option: Option, options: Sequence[Option], own: Budgets, passed_over: int) -> str:
    score, most = option.score, max(each.budget.candidates for each in options)
    if score is None and option.budget.candidates < most:
        return f"the largest with so few candidates, because none with the {most} of its method fits"
    if score is None and most == 1 and own.candidates_because:
        return (
            f"the largest trained number of steps, with one candidate, because {own.candidates_because} and this "
            "policy carries no scores"
        )
    if score is None and most == 1:
        number = "usual" if own.other_candidates or len(own.candidates) > 1 else "only"
        return f"the most steps that fit, with one candidate, its {number} number (this policy carries no scores)"
    if score is None:
        return f"the most steps that fit with the {most} candidates of its method (this policy carries no scores)"
    name = _measure(score).name
    found = f"{name} {score[name]:.3g} ({score[f'{name}_low']:.3g} .. {score[f'{name}_high']:.3g})"
    if score["difference"] < 0:
        return f"the best with {found}, although one step and one candidate did better: no fitting one did not"
    if passed_over:
        return f"the best with {found}, {passed_over} passed over that did worse than one step and one candidate"
    return f"the best with {found}"


def budget_words(budget: Budget) -> str:
    """The budget's name with its sizes in words, such as `M4N1 (4 steps, one candidate)`."""
    steps, candidates = budget.inference_steps, budget.candidates
    choice = "one candidate" if candidates == 1 else f"best of {candidates}"
    return f"{budget.name} ({steps} step{'s' * (steps > 1)}, {choice})"


def _up(milliseconds: float) -> str:
    """Three digits, rounded up, so that the limit in the message suffices."""
    unit = 10.0 ** (math.floor(math.log10(milliseconds)) - 2)
    return f"{math.ceil(milliseconds / unit) * unit:.3g}"
