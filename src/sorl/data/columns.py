"""Statistics of the columns of large arrays, computed in double precision, one block of rows at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from sorl.data.paging import release


BLOCK_VALUES = 1 << 17
"""Number of values in a block, which take 1 MB in double precision, so that temporaries are small beside the data."""
BLOCKS_KEPT = 64
"""Number of blocks after which the pages of a mapped array are released."""
ROUNDING_STEPS = 4
"""A column counts as constant if it varies by at most this many rounding steps of its stored dtype."""
SMALLEST_RANGE = 1e-30
"""A column also counts as constant if it varies by less than this: dividing by it would overflow in float32."""


class Columns(NamedTuple):
    """Statistics of each column of an array."""

    low: Float[np.ndarray, " columns"]
    high: Float[np.ndarray, " columns"]
    mean: Float[np.ndarray, " columns"]
    deviation: Float[np.ndarray, " columns"]
    """Standard deviation, not corrected for the number of rows."""
    constant: Bool[np.ndarray, " columns"]
    """Whether the column varies by no more than the rounding of its stored dtype."""


def blocks(array: Shaped[np.ndarray, "rows columns"]) -> Iterator[slice]:
    """Slices that together cover all rows, one for each block; pages of a mapped array are released on the way."""
    rows = max(1, BLOCK_VALUES // max(1, array.shape[1]))
    for number, start in enumerate(range(0, len(array), rows)):
        yield slice(start, start + rows)
        if number % BLOCKS_KEPT == BLOCKS_KEPT - 1:
            release(array)
    release(array)


def columns(array: Shaped[np.ndarray, "rows columns"], chosen: Bool[np.ndarray, " rows"] | None = None) -> Columns:
    """The statistics of an array's columns over the `chosen` rows (None: all); there must be at least one."""
    count, low, high, mean, squares = 0, np.inf, -np.inf, np.zeros(array.shape[1]), np.zeros(array.shape[1])
    # Values are taken relative to one row, so that the mean of a constant is exact, and an offset costs no digits.
    origin = array[0 if chosen is None else int(np.argmax(chosen))].astype(np.float64)
    for block in blocks(array):
        values = (array[block] if chosen is None else array[block][chosen[block]]).astype(np.float64)
        if not len(values):
            continue
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        values -= origin
        own_mean = values.mean(axis=0)
        values -= own_mean
        # Chan, Golub & LeVeque (1979): combine the means and sums of squares of two samples.
        total, step = count + len(values), own_mean - mean
        squares = squares + np.square(values, out=values).sum(axis=0) + step**2 * (count * len(values) / total)
        mean = mean + step * (len(values) / total)
        count = total
    low, high = np.broadcast_to(low, mean.shape).copy(), np.broadcast_to(high, mean.shape).copy()
    return Columns(low, high, origin + mean, np.sqrt(squares / max(count, 1)), is_constant(low, high, array.dtype))


def is_constant(
    low: Float[np.ndarray, " columns"], high: Float[np.ndarray, " columns"], dtype: np.dtype
) -> Bool[np.ndarray, " columns"]:
    """Whether each column's range is so small that rounding to `dtype` explains it."""
    rounding = ROUNDING_STEPS * eps(dtype) * np.maximum(np.abs(low), np.abs(high))
    return high - low <= np.maximum(rounding, SMALLEST_RANGE)


def eps(dtype: np.dtype) -> float:
    """The relative rounding step of a dtype; 0 for whole numbers and booleans."""
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
