"""How densely the data cover their states, by nearest neighbours in a sample of steps."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sorl.data.columns import Columns
from sorl.inspect.sample import Steps


SEARCHED = 4_000
"""Steps among which neighbours are searched."""
ASKED = 1_000
"""Steps whose neighbours are searched."""


def coverage(
    sample: Steps, observations: Columns, actions: Columns, held_out: Bool[np.ndarray, " episodes"]
) -> dict[str, Any] | None:
    """Distances of states to the nearest state of another episode, JSON-able; None for a single episode.

    States are standardised, and distances divided by the square root of the number of columns that vary, so that 1 is
    one deviation in each. A neighbour's action shows how far the actions are determined by the states.

    **Arguments:** `held_out`, whether each episode is held out for validation.

    **Returns:** the median and the 90 % quantile of the distances, and the root mean square difference of the two
    actions in deviations (1.4 if they are independent); under `validation` the same median for held-out states among
    those to train on. `asked` and `searched` say how many sampled steps were compared.
    """
    states, acts = _standardised(sample.observations, observations), _standardised(sample.actions, actions)
    asked, searched = states[:ASKED], states[:SEARCHED]
    if len(np.unique(sample.episode[:SEARCHED])) < 2 or not states.shape[1]:
        return None
    other = sample.episode[:ASKED, None] != sample.episode[None, :SEARCHED]
    nearest, distance = _nearest(asked, searched, other)
    known = np.isfinite(distance)
    difference = acts[:ASKED][known] - acts[:SEARCHED][nearest[known]]
    found: dict[str, Any] = {
        "asked": len(asked),
        "searched": len(searched),
        "distance_median": float(np.median(distance[known])),
        "distance_90": float(np.quantile(distance[known], 0.9)),
        "action_difference": float(np.sqrt(np.mean((difference**2).sum(axis=1)))),
        "validation": None,
    }
    asked_held, train = held_out[sample.episode[:ASKED]], ~held_out[sample.episode[:SEARCHED]]
    if asked_held.any() and train.any():
        _, apart = _nearest(asked[asked_held], searched, np.broadcast_to(train, (int(asked_held.sum()), len(train))))
        found["validation"] = float(np.median(apart))
    return found


def _standardised(values: Any, columns: Columns) -> Float[np.ndarray, "steps size"]:
    """The columns that vary, with mean 0 and deviation 1, over the root of their number."""
    varies = ~columns.constant & (columns.deviation > 0)
    scaled = (values[:, varies].astype(np.float64) - columns.mean[varies]) / columns.deviation[varies]
    return scaled / np.sqrt(max(1, int(varies.sum())))


def _nearest(
    asked: Float[np.ndarray, "asked size"],
    among: Float[np.ndarray, "among size"],
    allowed: Bool[np.ndarray, "asked among"],
) -> tuple[Int[np.ndarray, " asked"], Float[np.ndarray, " asked"]]:
    """The index of the nearest allowed row, and its distance (infinite if none is allowed)."""
    squares = (asked**2).sum(axis=1)[:, None] + (among**2).sum(axis=1)[None] - 2 * asked @ among.T
    squares = np.where(allowed, np.maximum(squares, 0), np.inf)
    nearest = squares.argmin(axis=1)
    # The squares above lose digits where rows are close, so that copies would be apart.
    apart = np.sqrt(((asked - among[nearest]) ** 2).sum(axis=1))
    return nearest, np.where(allowed[np.arange(len(asked)), nearest], apart, np.inf)
