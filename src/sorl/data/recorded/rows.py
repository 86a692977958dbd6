"""Cuts a table of steps, read block by block, into episodes."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from sorl.data import successors
from sorl.data.checks import not_closed, same_rows
from sorl.data.recorded.episodes import LoggedEpisode


class Rows(NamedTuple):
    """Consecutive rows of a table, one for each step."""

    observations: Shaped[np.ndarray, "rows observation"]
    actions: Shaped[np.ndarray, "rows action"]
    rewards: Shaped[np.ndarray, " rows"]
    terminated: Bool[np.ndarray, " rows"]
    ends: Bool[np.ndarray, " rows"]
    """Whether a row is marked as the last of its trajectory."""
    truncated: Bool[np.ndarray, " rows"]
    successors: Shaped[np.ndarray, "rows observation"] | None = None
    """The observation after each step, if the table has it."""
    known: Bool[np.ndarray, " rows"] | None = None
    """Whether a successor was seen after its step, if the table says so."""
    episode: Shaped[np.ndarray, " rows"] | None = None
    """The number of each row's episode; a trajectory also ends where it changes."""
    times: Shaped[np.ndarray, " rows"] | None = None

    def part(self, rows: slice) -> "Rows":
        """Some of the rows."""
        columns: list[Any] = [None if column is None else column[rows] for column in self]
        return Rows(*columns)


def episodes_of(path: Path, blocks: Iterable[Rows], notes: list[str], *, open_end: bool) -> Iterator[LoggedEpisode]:
    """The episodes of a table, whose rows must be in order.

    A stored next observation that only repeats the first observation of the next episode counts as unknown, unless the
    table says which are known.

    **Arguments:** `notes`, to which corrections are appended; `open_end`, whether the last trajectory may lack
    its mark.

    Raises a `ValueError` if the rows of an episode are not together, if a stored next observation is not the next row's
    observation, if an episode continues after a time-out, or if the last trajectory is not closed and must be.
    """
    return _with_last_states(path, _trajectories(path, blocks, notes, open_end), notes)


def _trajectories(path: Path, blocks: Iterable[Rows], notes: list[str], open_end: bool) -> Iterator[tuple[int, Rows]]:
    """The rows of each trajectory, with the number of its first row."""
    pending: list[Rows] = []
    row, first = 0, 0
    seen: set[int] = set()
    for block in blocks:
        begins = _begins(block)
        for start, stop in zip(begins, [*begins[1:], len(block.rewards)], strict=True):
            # The first part of a block may continue the trajectory of the block before.
            if pending and (start > 0 or _is_new(block, pending[-1])):
                yield first, _merged(pending)
                pending, first = [], row + start
            if block.episode is not None and not pending:
                _refuse_again(path, int(block.episode[start]), row + start, seen)
            pending.append(block.part(slice(start, stop)))
        row += len(block.rewards)
    if pending:
        last = pending[-1]
        if not last.ends[-1] and last.episode is None:
            if not open_end:
                raise not_closed(path, row - 1)
            notes.append(
                f"The last trajectory of {path.name} is not marked as ended in row {row - 1}; it counts as cut."
            )
        yield first, _merged(pending)


def _begins(block: Rows) -> list[int]:
    """The rows of a block that begin a trajectory; the first row always counts."""
    new = block.ends[:-1].copy()
    if block.episode is not None:
        new |= block.episode[1:] != block.episode[:-1]
    return [0, *(np.flatnonzero(new) + 1).tolist()] if len(block.rewards) else []


def _is_new(block: Rows, before: Rows) -> bool:
    """Whether a block's first row begins another trajectory than the rows before it."""
    if before.ends[-1]:
        return True
    return block.episode is not None and before.episode is not None and bool(block.episode[0] != before.episode[-1])


def _refuse_again(path: Path, number: int, row: int, seen: set[int]) -> None:
    if number in seen:
        raise ValueError(
            f"Episode {number} of {path} continues in row {row} after others; put the rows of each episode "
            "together, in order."
        )
    seen.add(number)


def _merged(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    columns: list[Any] = [None if one[0] is None else np.concatenate(one) for one in zip(*parts, strict=True)]
    return Rows(*columns)


def _with_last_states(
    path: Path, trajectories: Iterable[tuple[int, Rows]], notes: list[str]
) -> Iterator[LoggedEpisode]:
    """Episodes with the state after their last step, where the table has it and it is not the next episode's first."""
    low = high = beginning = None
    waiting: tuple[int, int, Rows] | None = None
    foreign: list[int] = []
    for number, (first, rows) in enumerate(trajectories):
        _refuse_cut_inside(path, first, rows)
        if rows.successors is not None and np.isfinite(rows.observations).all():  # others are refused by their own name
            # In double precision, because ranges of whole numbers or half precision overflow in their own dtype.
            bounds = [extreme(rows.observations, axis=0).astype(np.float64) for extreme in (np.min, np.max)]
            low = bounds[0] if low is None else np.minimum(low, bounds[0])
            high = bounds[1] if high is None else np.maximum(high, bounds[1])
            _refuse_other_successors(path, first, rows, successors.TOLERANCE * (high - low))
        if beginning is None:
            beginning = rows.observations[:1]
        if waiting is not None:
            yield _episode(*waiting, _is_first_of_next(waiting[2], rows.observations[:1]), foreign)
        waiting = number, first, rows
    if waiting is not None and beginning is not None:
        number, _, rows = waiting
        # If all other boundaries repeat the next episode's first observation, the last one cannot be trusted either.
        none_trusted = number > 0 and len(foreign) == number
        yield _episode(*waiting, none_trusted or _is_first_of_next(rows, beginning), foreign)
    if foreign and waiting is not None:
        notes.append(successors.foreign_note(path, len(foreign), waiting[0] + 1, foreign[0]))


def _refuse_cut_inside(path: Path, first: int, rows: Rows) -> None:
    if rows.truncated[:-1].any():
        row = first + int(np.argmax(rows.truncated))
        raise ValueError(
            f"{path} has a time-out in row {row}, but the episode of that row continues in the next; give the rows "
            "after a time-out another episode's number."
        )


def _episode(number: int, first: int, rows: Rows, is_foreign: bool, foreign: list[int]) -> LoggedEpisode:
    observations = rows.observations
    if is_foreign:
        foreign.append(first + len(rows.rewards) - 1)
    elif rows.successors is not None and (rows.known is None or rows.known[-1]):
        observations = np.concatenate([observations, rows.successors[-1:]])
    name = f"episode {number if rows.episode is None else int(rows.episode[0])}"
    truncated = bool(rows.truncated[-1])
    return LoggedEpisode(observations, rows.actions, rows.rewards, rows.terminated, truncated, name, first, rows.times)


def _is_first_of_next(rows: Rows, following: Shaped[np.ndarray, "1 observation"]) -> bool:
    """Whether the last stored successor only repeats the next trajectory's first observation."""
    if rows.successors is None or rows.known is not None:
        return False
    return bool(successors.is_foreign(rows.successors[-1:], following, rows.observations[-1:])[0])


def _refuse_other_successors(path: Path, first: int, rows: Rows, allowed: Shaped[np.ndarray, " observation"]) -> None:
    assert rows.successors is not None
    if rows.successors.shape != rows.observations.shape:
        raise ValueError(
            f"next_observations of {path} have {rows.successors.shape[1]} columns, observations "
            f"{rows.observations.shape[1]}; give the same."
        )
    with np.errstate(invalid="ignore"):
        agree = same_rows(rows.successors[:-1], rows.observations[1:], allowed)
    successors.refuse_others(path, agree, first)
