"""Means of evaluations over training seeds with their intervals, and a table of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sorl.statistics.intervals import INTERVALS, Interval, student_interval, success_interval
from sorl.statistics.measures import SUCCESS, Measure, measure_of
from sorl.statistics.rows import BUDGET_FIELDS, Row, settings, settings_text


def headline(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The headline of a run: means over its last three evaluations, never those of its best checkpoint."""
    return summarise(rows, last=3)


def summarise(rows: Sequence[Row], *, last: int = 1) -> list[dict[str, Any]]:
    """Means over training seeds, for each budget, and in a population for each combination of hyper-parameters.

    **Arguments:** `rows`, one for each update count, training seed and budget; `last`, the number of each seed's last
    evaluations to use.

    **Returns:** one row for each budget, in the order of `rows`: the budget, the hyper-parameters, `steps` (the update
    counts used), the number of `seeds`, the fields of an `Interval`, and the means of `return`, `length` and
    `steps_per_second`. The interval is about success where all rows have one, else about the return.
    """
    measure = measure_of(rows)
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[int, list[Row]]]] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        budgets = groups.setdefault(tuple(settings(row).items()), {})
        seeds = budgets.setdefault(tuple(row[field] for field in BUDGET_FIELDS), {})
        seeds.setdefault(row["training_seed"], []).append(row)
    return [
        dict(zip(BUDGET_FIELDS, budget, strict=True))
        | dict(own)
        | _means([one[-last:] for one in seeds.values()], measure)
        for own, budgets in groups.items()
        for budget, seeds in budgets.items()
    ]


def score_interval(by_seed: Sequence[Sequence[Row]], measure: Measure) -> Interval:
    """The mean of a measure over evaluations at one budget, with its 95 % interval.

    All evaluations of a seed play the same episodes, so that several say little more than one: Wilson's interval is
    that of their mean success over the episodes of one, and the interval of a single seed's return is the mean of its
    evaluations' intervals. Both are exact if the same episodes are hard in all evaluations, and otherwise too wide.

    **Arguments:** `by_seed`, the rows of each training seed; `measure`, which all of them have.
    """
    if measure == SUCCESS:
        successes, episodes = (
            np.array([np.mean([row[key] for row in own]) for own in by_seed]) for key in ("successes", "episodes")
        )
        return success_interval(successes, episodes.astype(int))
    means = np.array([np.mean([row["return"] for row in own]) for own in by_seed])
    if len(by_seed) > 1:
        return Interval(float(means.mean()), *student_interval(means), "student")
    ends = [[row.get(key) for row in by_seed[0]] for key in ("return_low", "return_high")]
    low, high = (None if None in values else float(np.mean(values)) for values in ends)  # type: ignore[arg-type]
    return Interval(float(means[0]), low, high, "episodes")


def _means(by_seed: list[list[Row]], measure: Measure) -> dict[str, Any]:
    rows = [row for own in by_seed for row in own]
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("return", "length", "steps_per_second")}
    steps = sorted({row["step"] for row in rows})
    score = score_interval(by_seed, measure).fields(measure)
    return {"steps": steps, "seeds": len(by_seed)} | score | means | score


def _rate(steps_per_second: float) -> str:
    return "-" if math.isnan(steps_per_second) else f"{steps_per_second:.0f}"


def table(summary: Sequence[Row]) -> str:
    """The rows of `summarise` or `headline` as lines of text."""
    if not summary:
        return "No evaluation was made."
    measure = measure_of(summary, "success")
    title = "success   95 % interval    return" if measure == SUCCESS else "  return         95 % interval"
    lines = [f" M^inf    N  {title}   length  steps/s"]
    shown: dict[str, float] = {}
    for row in summary:
        # The rows of a combination of hyper-parameters follow a line with their values.
        if settings(row) != shown:
            shown = settings(row)
            lines.append(f"{settings_text(shown)}:")
        ends = measure.range(row[f"{measure.name}_low"], row[f"{measure.name}_high"])
        score = f"{row['return']:8.4g}  {ends:>20}"
        if measure == SUCCESS:
            score = f"{row['success']:7.3f}  {ends}  {row['return']:8.1f}"
        lines.append(
            f"{row['inference_steps']:6d} {row['candidates']:4d}  {score} {row['length']:8.1f} "
            f"{_rate(row['steps_per_second']):>8}"
        )
    used = sorted({INTERVALS[row["interval"]] for row in summary})
    return "\n".join([*lines, f"95 % interval: {', '.join(used)}."])
