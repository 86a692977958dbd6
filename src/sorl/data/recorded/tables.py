"""Columns of tables of steps: flags, and numbers without an axis."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped


def flag(path: Path, key: str, values: Shaped[np.ndarray, "rows ..."], first_row: int) -> Bool[np.ndarray, " rows"]:
    """A column of zeros and ones as booleans; raises a `ValueError` with the first row that is neither."""
    if values.size != len(values):
        raise ValueError(f"{key} of {path} has shape {list(values.shape)}; give one number for each step.")
    values = values.reshape(len(values))
    clear = (values == 0) | (values == 1)
    if not clear.all():
        row = int(np.argmin(clear))
        raise ValueError(f"{key} of {path} is {values[row]} in row {first_row + row}; give 0 or 1.")
    return values.astype(np.bool_)
