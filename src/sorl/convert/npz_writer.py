"""Writes own logs as an npz file, episode by episode in constant memory."""

import math
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped

from sorl.data import records
from sorl.data.recorded.episodes import LoggedEpisode
from sorl.system.files import named_errors, whole_file


BLOCK_BYTES = 1 << 23
DATE = (1980, 1, 1, 0, 0, 0)
"""The date of every member, so that the same data give the same bytes."""


class NpzWriter:
    """An npz file of own logs that is being written; it and its record exist only when the block ends without error.

    Columns are collected in unnamed files in the output's directory, and joined at the end.

    **Arguments:** `path`, a file that does not exist yet; `action_limits`, the actions that map to -1 and 1, if known.

    Raises a `FileExistsError` if `path` exists, and another `OSError`, one sentence, if the system refuses a write.
    """

    def __init__(self, path: Path, action_limits: tuple[tuple[float, ...], tuple[float, ...]] | None = None):
        self._path, self._limits = path, action_limits
        self.provenance: dict[str, Any] = {}
        """The origin of the data, for the record, which may be completed while they are written."""
        self._files = ExitStack()
        self._columns: dict[str, _Column] = {}
        self._known: list[bool] = []

    def __enter__(self) -> "NpzWriter":
        if self._path.exists() or self._path.is_symlink():
            raise FileExistsError(f"{self._path} exists already; remove it, or give another name.")
        return self

    def __exit__(self, *error: Any) -> None:
        # The system may refuse the last rows of a column only when they are read or closed.
        with named_errors(self._path), self._files:
            if error[0] is None:
                self._join()

    def append(self, episode: LoggedEpisode) -> None:
        """Adds a checked episode."""
        steps = len(episode.actions)
        ends = np.arange(steps) == steps - 1
        self._known.append(episode.has_last_state)
        columns = {
            "observations": episode.observations[:steps],
            "actions": episode.actions,
            "rewards": episode.rewards,
            "ends": ends,
            "terminated": episode.terminated,
            "truncated": ends & episode.truncated,
            "last": episode.observations[-1:],
        }
        for name, values in columns.items():
            if name not in self._columns:
                # An error about a file whose name has the output's is reworded as one about the output.
                with named_errors(self._path):
                    temporary = tempfile.TemporaryFile(dir=self._path.parent, prefix=f".{self._path.name}.")
                    file = self._files.enter_context(temporary)
                self._columns[name] = _Column(file, values.dtype, values.shape[1:], self._path)
            self._columns[name].append(values)

    def _join(self) -> None:
        columns = self._columns
        ends, terminated, truncated = (columns[name].whole() for name in ("ends", "terminated", "truncated"))
        others = _flags(ends, terminated, truncated)
        with whole_file(self._path, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name in ("observations", "actions", "rewards"):
                    _write(archive, name, columns[name].dtype, columns[name].shape, columns[name].blocks())
                if any(self._known):
                    observations = columns["observations"]
                    following = self._next_observations(ends, terminated)
                    _write(archive, "next_observations", observations.dtype, observations.shape, following)
                    others["next_known"] = np.ones(len(ends), np.bool_)
                    others["next_known"][ends] = self._known
                if self._limits is not None:
                    others |= {"action_low": np.array(self._limits[0]), "action_high": np.array(self._limits[1])}
                for name, values in others.items():
                    _write(archive, name, values.dtype, values.shape, iter([values]))
            # The record goes first: without it the data's own split would be lost.
            file.flush()
            records.write_record(Path(file.name), self._path, self.provenance)

    def _next_observations(self, ends: np.ndarray, terminated: np.ndarray) -> Iterator[Shaped[np.ndarray, "rows size"]]:
        """The observation after each step, block by block.

        After an episode whose last state is unknown comes the next episode's first observation, which readers without
        `next_known` count as unknown; after a termination, which needs none, the last observation again.
        """
        known = np.zeros(len(ends), np.bool_)
        known[ends] = self._known
        stated = known | terminated
        observations, first = self._columns["observations"], self._columns["observations"].read(0, 1)
        row = episode = 0
        for block in observations.blocks():
            rows = slice(row, row + len(block))
            after = observations.read(rows.stop, 1)
            following = np.concatenate([block[1:], after if len(after) else first])
            places = np.flatnonzero(ends[rows])
            last = self._columns["last"].read(episode, len(places))
            chosen = stated[rows][places]
            following[places[chosen]] = last[chosen]
            yield following
            row, episode = rows.stop, episode + len(places)


def _flags(ends: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that mark ends: terminals and timeouts, or with masks if a trajectory outlasts a termination."""
    if (terminated & ~ends).any():
        return {"terminals": ends, "masks": ~terminated}
    return {"terminals": terminated, "timeouts": truncated | (ends & ~terminated)}


def _write(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype,
    shape: tuple[int, ...],
    blocks: Iterator[Shaped[np.ndarray, "rows ..."]],
) -> None:
    """Writes one array as a member of the archive."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy", DATE), "w", force_zip64=True) as member:
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, described)
        for block in blocks:
            member.write(_bytes(block))


def _bytes(values: Shaped[np.ndarray, "..."]) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


class _Column:
    """The rows of one array so far, in a file."""

    def __init__(self, file: IO[bytes], dtype: np.dtype, row: tuple[int, ...], path: Path):
        self._file, self._row, self._path, self._rows = file, row, path, 0
        self._row_bytes = math.prod(row) * dtype.itemsize
        self.dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._rows, *self._row)

    def append(self, values: Shaped[np.ndarray, "rows ..."]) -> None:
        with named_errors(self._path):
            self._file.write(_bytes(values.astype(self.dtype, casting="safe", copy=False)))
        self._rows += len(values)

    def read(self, start: int, rows: int) -> Shaped[np.ndarray, "rows ..."]:
        self._file.seek(start * self._row_bytes)
        content = self._file.read(rows * self._row_bytes)
        return np.frombuffer(content, self.dtype).reshape(-1, *self._row).copy()

    def blocks(self) -> Iterator[Shaped[np.ndarray, "rows ..."]]:
        step = max(1, BLOCK_BYTES // self._row_bytes)
        return (self.read(start, min(step, self._rows - start)) for start in range(0, self._rows, step))

    def whole(self) -> Shaped[np.ndarray, "rows ..."]:
        return self.read(0, self._rows)
