"""Confidence intervals of scores, over episodes for one training seed and over seeds for several."""

import math
import statistics
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from sorl.statistics.measures import SUCCESS, Measure


BOOTSTRAP_RESAMPLES = 10_000
_BLOCK_VALUES = 1 << 23
"""Number of values that are resampled at a time."""

INTERVALS = {
    "wilson": "Wilson's over episodes",
    "student": "Student's t over training seeds (of success, at least Wilson's over episodes)",
    "episodes": "bootstrap over episodes",
}
"""The method of an interval, in words."""


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
