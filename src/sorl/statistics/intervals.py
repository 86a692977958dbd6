"""Confidence intervals of scores, over episodes for one training seed and over seeds for several; and tables."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from sorl.statistics.measures import RETURN, SUCCESS, Measure, measure_of
from sorl.statistics.missing_success import reports_success, with_success


BOOTSTRAP_RESAMPLES = 10_000
_BLOCK_VALUES = 1 << 23
"""Number of values that are resampled at a time."""

INTERVALS = {
    "wilson": "Wilson's over episodes",
    "student": "Student's t over training seeds",
    "episodes": "bootstrap over episodes",
}
"""The method of an interval, in words."""

BUDGET_FIELDS = (
    "inference_steps",
    "candidates",
    "noise_scale",
    "policy_conditioning",
    "critic_conditioning",
    "verifier",
)
"""The fields of an evaluation row that identify its budget."""

SETTING = "agent."
"""The columns of a row whose names begin so hold the hyper-parameters of a member of a population."""

Row = Mapping[str, Any]
"""An evaluation of one training seed at one budget: `EvaluationResult.row()` with `step` and `training_seed`."""


class Interval(NamedTuple):
    """A mean score with its confidence interval."""

    mean: float
    low: float | None
    """None if the interval is not known."""
    high: float | None
    interval: str
    """The method: `wilson` (successes) or `episodes` (bootstrap of returns) over the episodes of one seed, or `student`
    over seeds."""

    def fields(self, measure: Measure) -> dict[str, Any]:
        """The fields of a row: `success`, `success_low`, `success_high` and `interval`.

        For returns, the first three are None, and `return`, `return_low` and `return_high` are added.
        """
        ends = {"success": self.mean, "success_low": self.low, "success_high": self.high, "interval": self.interval}
        if measure == SUCCESS:
            return ends
        returns = {"return": self.mean, "return_low": self.low, "return_high": self.high}
        return ends | dict.fromkeys(("success", "success_low", "success_high")) | returns


def wilson_interval(successes: float | int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success probability, which is also valid at 0 and 1.

    **Arguments:** `successes`, out of `episodes` independent episodes, a half for a tie; `confidence` in (0, 1).

    **Returns:** the lowest and the highest probability. Raises a `ValueError` unless 0 <= successes <= episodes and
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
    """Percentile bootstrap interval of the mean of many independent values, such as the returns of episodes.

    Of few values it is too narrow: that of two, their range, has their mean in half of all cases (`student_interval`).

    **Arguments:** `values`, one number for each episode; `confidence` in (0, 1); `seed`, that of the resampling, which
    makes tables reproducible.

    **Returns:** the lowest and the highest mean.
    """
    generator, rows = np.random.default_rng(seed), max(1, _BLOCK_VALUES // len(values))
    # In blocks, because a million episodes would take 80 GB.
    blocks = [min(rows, BOOTSTRAP_RESAMPLES - start) for start in range(0, BOOTSTRAP_RESAMPLES, rows)]
    means = [values[generator.integers(0, len(values), (block, len(values)))].mean(axis=1) for block in blocks]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def student_interval(values: Float[np.ndarray, " seeds"], confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of a few independent values, such as the scores of training seeds.

    If the values vary normally, it holds their mean in `confidence` of all cases, however few they are.

    **Arguments:** `values`, at least two; `confidence` in (0, 1).

    **Returns:** the lowest and the highest mean. Source: Student, "The probable error of a mean" (1908).
    """
    half = student_width(len(values) - 1, confidence) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def student_width(freedom: float | int, confidence: float) -> float:
    """The half-width of Student's t interval in standard errors, for `freedom` degrees of freedom."""
    from scipy import special  # takes a fraction of a second, and one seed does not need it

    return float(special.stdtrit(freedom, (1 + confidence) / 2))


def success_interval(successes: Shaped[np.ndarray, " seeds"], episodes: Int[np.ndarray, " seeds"]) -> Interval:
    """Mean success with its 95 % interval: Wilson's over the episodes of a single seed, else Student's over seeds.

    With several seeds, the variation is that between seeds: more episodes of one policy say nothing about the next
    training run. But seeds may agree by chance, so the interval is at least as wide as Wilson's over all episodes.

    **Arguments:** `successes` and `episodes`, for each training seed; of several evaluations on the same episodes, the
    mean successes.
    """
    rates = successes / episodes
    over_episodes = wilson_interval(float(successes.sum()), int(episodes.sum()))
    if len(rates) == 1:
        return Interval(float(rates[0]), *over_episodes, "wilson")
    low, high = wider(student_interval(rates), over_episodes)
    return Interval(float(rates.mean()), max(0.0, low), min(1.0, high), "student")


def wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The smallest interval that holds both."""
    return min(one[0], other[0]), max(one[1], other[1])


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


class Difference(NamedTuple):
    """A mean difference of a score with its confidence interval."""

    difference: float
    difference_low: float
    difference_high: float


def paired_difference(
    scores: Shaped[np.ndarray, "seeds episodes"], reference: Shaped[np.ndarray, "seeds episodes"]
) -> Difference:
    """The difference of scores between two budgets on the same episodes, with its 95 % interval.

    Scores are successes (booleans) or returns. The interval is a bootstrap over the episodes of a single training seed,
    else Student's over seeds, and at least as wide as the bootstrap over all episodes; if all values are equal, it has
    no width. Pairing removes the variation that both budgets share, so the interval is narrower than that of the
    difference of two independent scores.
    """
    differences = scores.astype(float) - reference
    low, high = bootstrap_interval(differences.ravel())
    if len(differences) > 1:
        low, high = wider(student_interval(differences.mean(axis=1)), (low, high))
    if scores.dtype == bool:
        low, high = max(-1.0, low), min(1.0, high)
    return Difference(float(differences.mean()), low, high)


def evaluation_rows(metrics: Iterable[Row], episodes: int, noise_scale: float = 1.0) -> list[dict[str, Any]]:
    """The evaluations in a run's metrics, one row for each step, training seed and budget, for `summarise`.

    **Arguments:** `metrics`, rows of `runs.metrics.read_metrics`; `episodes` and `noise_scale`, those of each
    evaluation. Where one of them has a success, all have: a missing one counts as none.
    """
    metrics, rows = [*metrics], []
    if reports_success(metrics):
        metrics = [with_success(metric) for metric in metrics]
    for metric in metrics:
        for name, mean in metric.items():
            if budget := re.fullmatch(r"evaluation/return/(M(\d+)N(\d+))", name):
                row = dict.fromkeys(BUDGET_FIELDS) | {"noise_scale": noise_scale}
                row["steps_per_second"] = math.nan
                row |= {"inference_steps": int(budget[2]), "candidates": int(budget[3]), "episodes": episodes}
                success = metric.get(f"evaluation/success/{budget[1]}")
                successes = None if success is None else round(success * episodes)
                row |= settings(metric) | {
                    "step": metric["step"],
                    "training_seed": metric["seed"],
                    "successes": successes,
                    "return": mean,
                }
                row |= {key: metric.get(f"evaluation/{key}/{budget[1]}") for key in ("return_low", "return_high")}
                row["length"] = metric[f"evaluation/episode_length/{budget[1]}"]
                rows.append(row)
    return rows


def settings(row: Row) -> dict[str, float]:
    """The hyper-parameters of the member of a population that a row is about, by dotted name; else empty."""
    return {name: value for name, value in row.items() if name.startswith(SETTING)}


def settings_text(settings: Mapping[str, float]) -> str:
    """The values of hyper-parameters in words that tell different ones apart, such as `agent.q_coefficient 10`."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in settings.items())


def _shown(value: float) -> str:
    return text if float(text := f"{value:g}") == value else repr(float(value))


def member_of(row: Row) -> int:
    """The number of the member that a row is about: in a population its number, else the training seed."""
    return next(row[name] for name in ("member", "training_seed", "seed") if name in row)


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
    judged = measure_of(summary, "success") == SUCCESS
    title = "success   95 % interval    return" if judged else "  return         95 % interval"
    lines = [f" M^inf    N  {title}   length  steps/s"]
    shown: dict[str, float] = {}
    for row in summary:
        # The rows of a combination of hyper-parameters follow a line with their values.
        if settings(row) != shown:
            shown = settings(row)
            lines.append(f"{settings_text(shown)}:")
        if judged:
            score = (
                f"{row['success']:7.3f}  {row['success_low']:5.3f} .. {row['success_high']:5.3f}  {row['return']:8.1f}"
            )
        else:
            score = f"{row['return']:8.4g}  {RETURN.range(row['return_low'], row['return_high']):>20}"
        lines.append(
            f"{row['inference_steps']:6d} {row['candidates']:4d}  {score} {row['length']:8.1f} "
            f"{_rate(row['steps_per_second']):>8}"
        )
    used = sorted({INTERVALS[row["interval"]] for row in summary})
    return "\n".join([*lines, f"95 % interval: {', '.join(used)}."])
