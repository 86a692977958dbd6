"""Stored next observations: they must be the observations of the next rows, and not begin the next episode.

A `next_observations` that is a copy of the observations shifted by one row holds, after a trajectory's last row, the
first observation of the next trajectory, and bootstrapping from it would mix episodes. Such an observation counts as
unknown. It is not an error, because an environment that always starts in one state can also end in it; the loss is then
only one step of an episode. If the observation does not change across the boundary, the equality proves nothing, and
the observation is kept. If all other boundaries look shifted, the last row of the data counts as unknown too. None of
this is needed where `next_known` says which observations are known.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from sorl.data.checks import same_rows


TOLERANCE = 1e-5
"""The share of a column's range by which a stored next observation may differ from the next row."""


def is_foreign(
    successors: Shaped[np.ndarray, "trajectories observation"],
    following: Shaped[np.ndarray, "trajectories observation"],
    last: Shaped[np.ndarray, "trajectories observation"],
) -> Bool[np.ndarray, " trajectories"]:
    """Whether the observation stored after each trajectory only repeats the first one of the next trajectory.

    **Arguments:** `following`, the first observation of the next trajectory; `last`, the trajectory's own last one.
    """
    return same_rows(successors, following) & ~same_rows(successors, last)


def foreign_note(path: Path, foreign: int, episodes: int, row: int) -> str:
    """One sentence about the number of episodes of which `is_foreign` holds; the first of them ends in `row`."""
    return (
        f"next_observations of {path.name} reach into the next episode after {foreign} of {episodes} episodes (first "
        f"in row {row}), so these next observations count as unknown; store the observation after the last step, "
        "before the reset."
    )


def refuse_others(path: Path, agree: Bool[np.ndarray, " rows"], first: int) -> None:
    """Raises a `ValueError` unless all stored next observations agree with the next rows; the rows begin at `first`."""
    if not agree.all():
        row = first + int(np.argmin(agree))
        raise ValueError(
            f"next_observations of {path} in row {row} is not the observation of row {row + 1}, although row {row} "
            "ends no trajectory; keep the steps in order and mark the ends."
        )
