"""The steps of a LeRobot data set as a table, whose frames must be in order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from sorl.data.tables.parquet_table import ParquetTable


EPISODE, FRAME = "episode_index", "frame_index"


class Frames:
    """The columns of a data set's parquet files; the frames of each episode are numbered in rising order."""

    def __init__(self, path: Path, files: Sequence[Path]):
        """**Arguments:** as for `ParquetTable`."""
        self._table = ParquetTable(path, files)
        self.path, self.columns, self.rows = path, self._table.columns, self._table.rows

    def shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """As `ParquetTable.shapes`."""
        return self._table.shapes(names)

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, Shaped[np.ndarray, "rows ..."]]]:
        """As `ParquetTable.blocks`; also raises a `ValueError` for a frame that is not after the one before it."""
        if FRAME not in self.columns or EPISODE not in self.columns:
            yield from self._table.blocks(names)
            return
        row, before = 0, np.array([[-1, 0]])
        for block in self._table.blocks([*dict.fromkeys([*names, EPISODE, FRAME])]):
            numbers = np.stack([block[EPISODE].reshape(-1), block[FRAME].reshape(-1)], axis=1)
            both = np.concatenate([before, numbers])
            wrong = (both[1:, 0] == both[:-1, 0]) & (both[1:, 1] <= both[:-1, 1])
            if wrong.any():
                place = int(np.argmax(wrong))
                raise ValueError(
                    f"frame_index of {self.path} is {both[place + 1, 1]} in row {row + place}, after {both[place, 1]} "
                    f"in the same episode {both[place, 0]}; put the frames of each episode in order."
                )
            row, before = row + len(numbers), numbers[-1:]
            yield {name: block[name] for name in names}
