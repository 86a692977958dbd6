"""An npz file as a table: each array is a column, and all are read in step, block by block."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from sorl.data import npz


BLOCK_BYTES = 1 << 23


class NpzTable:
    """The arrays of an npz file, one row for each step; an array in Fortran order is read into memory."""

    def __init__(self, path: Path):
        self.path = path
        with npz.opened(path) as file:
            self.columns = file.keys

    def shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The shape of each named array; raises a `ValueError` if one is damaged or holds no real numbers."""
        with npz.opened(self.path) as file:
            return {name: file.shape(name) for name in names}

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, Shaped[np.ndarray, "rows ..."]]]:
        """Consecutive rows of the named arrays, which must have the same number of rows."""
        with npz.opened(self.path) as file, ExitStack() as stack:
            readers = {name: stack.enter_context(file.rows(name)) for name in names}
            total = readers[names[0]].count
            width = sum(reader.row_bytes for reader in readers.values())
            step = max(1, BLOCK_BYTES // max(1, width))
            for start in range(0, total, step):
                yield {name: reader.read(min(step, total - start)) for name, reader in readers.items()}
