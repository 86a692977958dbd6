"""Discounted sums of rewards along trajectories."""

import numpy as np
from jaxtyping import Float, Int


def discounted_sums(
    rewards: Float[np.ndarray, " rows"],
    discounts: Float[np.ndarray, " rows"],
    last: Int[np.ndarray, " trajectories"],
    lengths: Int[np.ndarray, " trajectories"],
    *,
    after: float = 0.0,
) -> Float[np.ndarray, " rows"]:
    """The sum from each row to its trajectory's end: its reward, plus its discount times the sum from the next row.

    **Arguments:** `discounts`, gamma, or 0 where the episode terminated; `last`, the last row of each trajectory, and
    `lengths`, its number of rows; `after`, the sum that follows the last row.
    """
    sums, following = np.zeros(len(rewards)), np.full(len(last), after)
    # All trajectories at once, from their ends to their beginnings.
    for back in range(int(lengths.max())):
        running = np.flatnonzero(back < lengths)
        rows = last[running] - back
        following[running] = rewards[rows] + discounts[rows] * following[running]
        sums[rows] = following[running]
    return sums
