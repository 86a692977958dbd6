"""Rank correlation: whether two measures put the same things in the same order."""

import numpy as np
from jaxtyping import Float, Shaped


def ranks(values: Shaped[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
    """The rank of each value, from 1 for the least; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def rank_correlation(one: Shaped[np.ndarray, " values"], other: Shaped[np.ndarray, " values"]) -> float | None:
    """Spearman's rank correlation, in [-1, 1]; None if all values of one measure are equal.

    Source: Spearman, "The Proof and Measurement of Association between Two Things" (1904).
    """
    first, second = (found - found.mean() for found in (ranks(one), ranks(other)))
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm > 0 else None
