"""Aggregates of scores over tasks and training seeds: interquartile mean, mean, and probability of improvement.

Bootstraps over few seeds are somewhat too narrow, less so over many tasks.

Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sorl.statistics.intervals import BOOTSTRAP_RESAMPLES, student_width, wider, wilson_interval


Scores = Sequence[Float[np.ndarray, "_"]]
"""One array for each task, with the score of every training seed."""


class Estimate(NamedTuple):
    """A number with its confidence interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Scores, confidence: float = 0.95, *, seed: int = 0) -> Estimate:
    """The mean of the middle half of all tasks' scores, with its stratified bootstrap interval.

    A quarter of the scores, rounded down, is left out at each end (section 4.3 of the paper). The bootstrap resamples
    the seeds within each task, so every resample has the same number of scores of each task.

    **Arguments:** `scores`, at least one for each task; `confidence` in (0, 1); `seed`, that of the resampling.
    """
    resampled = np.concatenate([_resampled(task, np.random.default_rng((seed, i))) for i, task in enumerate(scores)], 1)
    found = _middle_half(np.concatenate(scores)[None])
    return _estimate(found, _middle_half(resampled), confidence)


def mean_over_tasks(scores: Scores, episodes: Sequence[int], confidence: float = 0.95) -> Estimate:
    """The mean over tasks of each task's mean success, with Student's t interval for seeds that vary within tasks.

    The degrees of freedom are those of Welch and Satterthwaite. Seeds may agree by chance, so the interval is at least
    as wide as Wilson's over episodes: as many for each task as the harmonic mean of the tasks' numbers.

    **Arguments:** `scores`, between 0 and 1, at least one for each task; `episodes`, the number of each task's episodes
    over all its seeds; `confidence` in (0, 1). Source: Welch, "The generalization of Student's problem when several
    different population variances are involved" (1947).
    """
    mean = float(np.mean([task.mean() for task in scores]))
    # With the variance p (1 - p) / n of each of T tasks, that of their mean is p (1 - p) / (T * harmonic mean of n).
    played = round(len(scores) ** 2 / sum(1 / count for count in episodes))
    over_episodes = wilson_interval(mean * played, played, confidence)
    free = np.array([max(1, len(task) - 1) for task in scores])
    variances = np.array([task.var(ddof=1) / len(task) if len(task) > 1 else 0.0 for task in scores])
    if not variances.any():
        return Estimate(mean, *over_episodes)
    freedom = variances.sum() ** 2 / np.sum(variances**2 / free)
    half = student_width(freedom, confidence) * math.sqrt(variances.sum()) / len(scores)
    low, high = wider((mean - half, mean + half), over_episodes)
    return Estimate(mean, max(0.0, low), min(1.0, high))


def probability_of_improvement(first: Scores, second: Scores, confidence: float = 0.95, *, seed: int = 0) -> Estimate:
    """The probability that a run of the first method beats one of the second on a random task, with its interval.

    It is the mean over tasks of the share of pairs of seeds in which the first scores higher, a tie counting one half
    (section 4.3 of the paper; the Mann-Whitney statistic). The bootstrap resamples seeds within each task and method.
    If one method wins every pair, so does it in every resample; so the interval is at least as wide as Wilson's, in
    which only pairs without a common seed count, the fewest of any task for each task.

    **Arguments:** `first`, `second`, the same tasks in the same order, with any numbers of seeds; `confidence` in
    (0, 1); `seed`, that of the resampling. Raises a `ValueError` if the numbers of tasks differ.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"There are {len(first)} and {len(second)} tasks; give both methods' scores on the same ones.")
    shares = [_share(one[None], other[None]) for one, other in zip(first, second, strict=True)]
    generators = [np.random.default_rng((seed, i)) for i in range(len(first))]
    resampled = [
        _share(_resampled(one, generator), _resampled(other, generator))
        for one, other, generator in zip(first, second, generators, strict=True)
    ]
    found = _estimate(np.mean(shares, axis=0), np.mean(resampled, axis=0), confidence)
    independent = len(first) * fewest_seeds(first, second)
    low, high = wider(found[1:], wilson_interval(found.value * independent, independent, confidence))
    return Estimate(found.value, low, high)


def fewest_seeds(*methods: Scores) -> int:
    """The lowest number of seeds of any method on any task."""
    return min(len(task) for scores in methods for task in scores)


def known_ends(found: Estimate, seeds: int) -> tuple[float, float] | tuple[None, None]:
    """The ends of an estimate's interval; None if a task has one seed, which says nothing of the others.

    Nor is there an interval without width, of seeds that agree: they may do so by chance.
    """
    return (found.low, found.high) if seeds > 1 and found.low < found.high else (None, None)


def interval_text(found: Estimate, seeds: int) -> str:
    """The interval of an estimate as text; `-` if it is not known."""
    low, high = known_ends(found, seeds)
    return "-" if low is None else f"{low:.3f} .. {high:.3f}"


def _resampled(
    values: Float[np.ndarray, " seeds"], generator: np.random.Generator
) -> Float[np.ndarray, "resamples seeds"]:
    return values[generator.integers(0, len(values), (BOOTSTRAP_RESAMPLES, len(values)))]


def _middle_half(scores: Float[np.ndarray, "resamples scores"]) -> Float[np.ndarray, " resamples"]:
    ordered, count = np.sort(scores, axis=1), scores.shape[1]
    return ordered[:, count // 4 : count - count // 4].mean(axis=1)


def _share(
    first: Float[np.ndarray, "resamples first"], second: Float[np.ndarray, "resamples second"]
) -> Float[np.ndarray, " resamples"]:
    """The share of pairs in which the first is greater; ties count one half."""
    differences = first[:, :, None] - second[:, None, :]
    return ((np.sign(differences) + 1) / 2).mean(axis=(1, 2))


def _estimate(found: Float[np.ndarray, "1"], resampled: Float[np.ndarray, " resamples"], confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Estimate(float(found[0]), float(low), float(high))
