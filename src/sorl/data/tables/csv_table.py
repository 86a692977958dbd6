"""A CSV file as a table: the first line names the columns, and every cell is a number."""

import contextlib
import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from sorl.system.files import named_errors, refuse_special


BLOCK_ROWS = 8192
FLAGS = {"true": "1", "false": "0"}
"""Words for booleans, in any case, and the numbers that they count as."""


class CsvTable:
    """The columns of a CSV file, whose numbers are read in double precision, exactly as they are written."""

    def __init__(self, path: Path):
        self.path = path
        with self._open() as file:
            try:
                self.columns = [name.strip() for name in next(csv.reader(file), [])]
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(
                    f"{path} is no CSV file in UTF-8 ({error}); write numbers with commas between."
                ) from error
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if twice or not any(self.columns):
            found = f"two columns named {twice[0]!r}" if twice else "no first line"
            raise ValueError(f"{path} has {found}; name every column in the first line.")

    def shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The shape of each named column; the number of rows is not known, and is 0."""
        return dict.fromkeys(names, (0,))

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, Shaped[np.ndarray, " rows"]]]:
        """Consecutive rows of the named columns; raises a `ValueError` for a row that is not all numbers."""
        places = [self.columns.index(name) for name in names]
        with self._open() as file:
            lines = csv.reader(file)
            next(lines)
            first = 0
            try:
                while rows := list(itertools.islice((line for line in lines if line), BLOCK_ROWS)):
                    values = self._numbers(rows, first, places)
                    yield {name: values[:, index] for index, name in enumerate(names)}
                    first += len(rows)
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{self.path} is damaged after row {first} ({error}); write it again.") from error

    def _numbers(self, rows: list[list[str]], first: int, places: list[int]) -> Shaped[np.ndarray, "rows columns"]:
        for number, row in enumerate(rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.path} has {len(row)} cells in row {first + number}, but {len(self.columns)} columns; give "
                    "every row a cell for each."
                )
        chosen = [[row[place] for place in places] for row in rows]
        if not any("_" in cell for row in chosen for cell in row):  # see `_number`
            with contextlib.suppress(ValueError):
                return np.array(chosen, dtype=np.float64)
        return np.array([self._row(row, first + number, places) for number, row in enumerate(chosen)])

    def _row(self, row: list[str], number: int, places: list[int]) -> list[float]:
        """The numbers of one row, one by one, to find the cell that is none."""
        values = []
        for place, cell in zip(places, row, strict=True):
            try:
                values.append(_number(cell))
            except ValueError:
                raise ValueError(
                    f"{self.columns[place]} of {self.path} is {cell[:40]!r} in row {number}; give a number."
                ) from None
        return values

    def _open(self):
        refuse_special(self.path, "CSV file")
        with named_errors(self.path, "read", "give a file that you may read"):
            return self.path.open(encoding="utf-8-sig", newline="")


def _number(cell: str) -> float:
    """The number or the flag in a cell; raises a `ValueError` for others, and for 1_0, which Python reads as 10."""
    if "_" in cell:
        raise ValueError(cell)
    return float(FLAGS.get(cell.strip().lower(), cell))
