"""How sure a success rate is: intervals over episodes for one training seed, over seeds for several; and its table."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


BOOTSTRAP_RESAMPLES = 10_000

BUDGET_FIELDS = (
    "inference_steps",
    "candidates",
    "noise_scale",
    "policy_conditioning",
    "critic_conditioning",
    "q_aggregation",
    "softmax_temperature",
)
"""The fields of an evaluation row that say which budget it is about."""

Row = Mapping[str, Any]
"""An evaluation of one training seed at one budget: `EvaluationResult.row()` with `step` and `training_seed`."""


class Interval(NamedTuple):
    """A mean success with the interval around it."""

    success: float
    success_low: float
    success_high: float
    interval: str
    """How it was made: `wilson` over the episodes of one seed, or `bootstrap` over seeds."""


def wilson_interval(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success probability, sensible at 0 and at 1 too.

    **Arguments:** `successes` of `episodes` independent episodes; `confidence` in (0, 1).

    **Returns:** the lowest and the highest probability. Raises a `ValueError` unless 0 <= successes <= episodes,
    episodes >= 1. Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if not 0 <= successes <= episodes or episodes < 1:
        raise ValueError(f"{successes} successes in {episodes} episodes have no interval; give counts that fit.")
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    rate, weight = successes / episodes, z**2 / episodes
    centre = (rate + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(rate * (1 - rate) / episodes + weight / (4 * episodes))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    values: Float[np.ndarray, " values"], confidence: float = 0.95, *, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent values, such as the scores of training seeds.

    **Arguments:** `values`, one score a seed (or one number an episode); `confidence` in (0, 1); `seed` of the
    resampling, so that a table made twice says the same.

    **Returns:** the lowest and the highest mean.
    """
    indices = np.random.default_rng(seed).integers(0, len(values), (BOOTSTRAP_RESAMPLES, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[indices].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def success_interval(successes: Int[np.ndarray, " seeds"], episodes: Int[np.ndarray, " seeds"]) -> Interval:
    """Mean success with its 95 % interval: Wilson's over the episodes of a lone seed, else the bootstrap over seeds.

    With several seeds it is they that vary: more episodes of one policy say nothing about the next training run.

    **Arguments:** `successes` of `episodes`, one count for each training seed.
    """
    rates = successes / episodes
    if len(rates) == 1:
        return Interval(float(rates[0]), *wilson_interval(int(successes[0]), int(episodes[0])), "wilson")
    return Interval(float(rates.mean()), *bootstrap_interval(rates), "bootstrap")


class Difference(NamedTuple):
    """A mean difference of success with the interval around it."""

    difference: float
    difference_low: float
    difference_high: float


def paired_difference(
    success: Bool[np.ndarray, "seeds episodes"], reference: Bool[np.ndarray, "seeds episodes"]
) -> Difference:
    """How much more often one budget succeeds than another on the same episodes, with its 95 % bootstrap interval.

    It is over the episodes of a lone training seed, else over seeds, as in `success_interval`; where all values are
    equal it has no width. What episodes and seeds have in common cancels, so that the interval is narrower than the
    difference of two rates would have.
    """
    differences = success.astype(float) - reference
    values = differences[0] if len(differences) == 1 else differences.mean(axis=1)
    return Difference(float(values.mean()), *bootstrap_interval(values))


def evaluation_rows(metrics: Iterable[Row], episodes: int, noise_scale: float = 1.0) -> list[dict[str, Any]]:
    """The evaluations among a run's metrics, one row for each step, training seed and budget, for `summarise`.

    **Arguments:** `metrics`, rows of `runs.metrics.read_metrics`; `episodes` of each evaluation, and its `noise_scale`.
    """
    rows = []
    for metric in metrics:
        for name, success in metric.items():
            if budget := re.fullmatch(r"evaluation/success/(M(\d+)N(\d+))", name):
                row = dict.fromkeys(BUDGET_FIELDS) | {"noise_scale": noise_scale, "softmax_temperature": 0.0}
                row["steps_per_second"] = math.nan
                row |= {"inference_steps": int(budget[2]), "candidates": int(budget[3]), "episodes": episodes}
                row |= {"step": metric["step"], "training_seed": metric["seed"], "successes": round(success * episodes)}
                row["return"] = metric[f"evaluation/return/{budget[1]}"]
                row["length"] = metric[f"evaluation/episode_length/{budget[1]}"]
                rows.append(row)
    return rows


def headline(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The numbers a run is known by: means over its last three evaluations, never those of its best checkpoint."""
    return summarise(rows, last=3)


def summarise(rows: Sequence[Row], *, last: int = 1) -> list[dict[str, Any]]:
    """Means over training seeds, for each budget.

    **Arguments:** `rows`, one for each update count, training seed and budget; `last`, how many evaluations of each
    seed count.

    **Returns:** one row for each budget, in the order of `rows`: the budget, `steps` (the update counts used), the
    number of `seeds`, an `Interval`, and the means of `return`, `length` and `steps_per_second`.
    """
    budgets: dict[tuple[Any, ...], dict[int, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        seeds = budgets.setdefault(tuple(row[field] for field in BUDGET_FIELDS), {})
        seeds.setdefault(row["training_seed"], []).append(row)
    return [
        dict(zip(BUDGET_FIELDS, budget, strict=True)) | _means([own[-last:] for own in seeds.values()])
        for budget, seeds in budgets.items()
    ]


def _means(by_seed: list[list[Row]]) -> dict[str, Any]:
    successes, episodes = (
        np.array([sum(row[key] for row in own) for own in by_seed]) for key in ("successes", "episodes")
    )
    rows = [row for own in by_seed for row in own]
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("return", "length", "steps_per_second")}
    steps = sorted({row["step"] for row in rows})
    return {"steps": steps, "seeds": len(by_seed)} | success_interval(successes, episodes)._asdict() | means


def _rate(steps_per_second: float) -> str:
    return "-" if math.isnan(steps_per_second) else f"{steps_per_second:.0f}"


def table(summary: Sequence[Row]) -> str:
    """The rows of `summarise` or `headline` as lines of text."""
    if not summary:
        return "No evaluation was made."
    lines = [" M^inf    N  success   95 % interval    return   length  steps/s"]
    for row in summary:
        lines.append(
            f"{row['inference_steps']:6d} {row['candidates']:4d}  {row['success']:7.3f}  "
            f"{row['success_low']:5.3f} .. {row['success_high']:5.3f}  {row['return']:8.1f} {row['length']:8.1f} "
            f"{_rate(row['steps_per_second']):>8}"
        )
    kinds = {"wilson": "Wilson's over episodes", "bootstrap": "bootstrap over training seeds"}
    used = sorted({kinds[row["interval"]] for row in summary})
    return "\n".join([*lines, f"95 % interval: {', '.join(used)}."])
