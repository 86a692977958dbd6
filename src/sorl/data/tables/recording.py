"""Episodes of a table with named columns."""

from collections.abc import Iterator, Mapping as Named, Sequence
from math import inf
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Shaped

from sorl.data.checks import flags
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.data.recorded.keys import column_names, joined
from sorl.data.recorded.rewards import RewardRule
from sorl.data.recorded.rows import Rows, episodes_of
from sorl.data.tables.mapping import Mapping
from sorl.system.names import nearest


@runtime_checkable
class Table(Protocol):
    """A file of named columns, read block by block."""

    path: Path
    columns: list[str]

    def shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The shape of each named column, with 0 for a number of rows that is not known."""
        ...

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, Shaped[np.ndarray, "rows ..."]]]:
        """Consecutive rows of the named columns."""
        ...


def recording(table: Table, mapping: Mapping, rule: RewardRule, form: str, files: Sequence[Path]) -> Recording:
    """The data of a table.

    **Arguments:** `mapping`, what its columns are; `rule`, the source of the rewards; `form` and `files` of the result.

    Raises a `ValueError` if a column is missing or has a wrong shape.
    """
    path = table.path
    signal = rule.column_to_read(path, mapping.rewards, mapping.success)
    used = mapping.columns + [name for name in [signal] if name is not None and name not in mapping.columns]
    for name in used:
        if name not in table.columns:
            raise ValueError(
                f"{path} has no column {name!r}{nearest(name, table.columns)}; it has {', '.join(table.columns)}."
            )
    shapes = table.shapes(used)
    _refuse_wrong_shapes(path, mapping, shapes)
    _refuse_wrong_limits(path, mapping, len(_names(mapping.actions, shapes)))
    steps = shapes[used[0]][0] or None

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        blocks = _rows(path, mapping, signal, table.blocks(used))
        for episode in episodes_of(path, blocks, notes, open_end=False):
            yield rule.applied(path, episode, says_ends=mapping.terminals is not None)

    low, high = mapping.action_low, mapping.action_high
    return Recording(
        path=path,
        form=form,
        read=read,
        observation_names=_names(mapping.observations, shapes),
        action_names=_names(mapping.actions, shapes),
        files=tuple(files),
        steps=steps,
        frame_rate=mapping.frame_rate,
        action_limits=None if low is None or high is None else (low, high),
        left_out=tuple(name for name in table.columns if name not in used),
        details={"reward": rule.text()},
    )


def _names(columns: Sequence[str], shapes: Named[str, tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(name for column in columns for name in column_names(column, int(np.prod(shapes[column][1:]))))


def _refuse_wrong_shapes(path: Path, mapping: Mapping, shapes: Named[str, tuple[int, ...]]) -> None:
    wide = {*mapping.observations, *mapping.actions, *(mapping.next_observations or ())}
    for name, shape in shapes.items():
        if not 0 < len(shape) <= 2 or (name not in wide and len(shape) == 2 and shape[1] != 1):
            form = "a number or a vector" if name in wide else "a number"
            raise ValueError(f"{name} of {path} has shape {list(shape)}; give {form} in each row.")
    rows = {name: shape[0] for name, shape in shapes.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(f"The columns of {path} have rows: {counts}; give all the same number, at least one.")


def _refuse_wrong_limits(path: Path, mapping: Mapping, size: int) -> None:
    low, high = mapping.action_low, mapping.action_high
    if low is None or high is None:
        return
    if len(low) != size or len(high) != size or not all(-inf < a <= b < inf for a, b in zip(low, high, strict=True)):
        raise ValueError(
            f"action_low {list(low)} and action_high {list(high)} of {path} do not fit its {size} actions; give one "
            "low and one high for each, finite and low <= high."
        )


def _numbers(path: Path, name: str, values: Shaped[np.ndarray, "rows ..."], first: int) -> Shaped[np.ndarray, " rows"]:
    """The column of episodes' numbers; raises a `ValueError` with the first row that has no whole number."""
    values = values.reshape(-1)
    if values.dtype.kind != "f":
        return values
    # From 2^53 on (in double precision) neighbouring whole numbers are the same.
    largest = 2.0 ** (np.finfo(values.dtype).nmant + 1)
    with np.errstate(invalid="ignore"):
        whole = (values == np.floor(values)) & (np.abs(values) < largest)
    if not whole.all():
        row = int(np.argmin(whole))
        raise ValueError(
            f"{name} of {path} is {values[row]} in row {first + row}; number episodes by whole numbers below "
            f"{largest:.0f}."
        )
    return values


def _rows(
    path: Path, mapping: Mapping, signal: str | None, blocks: Iterator[dict[str, Shaped[np.ndarray, "rows ..."]]]
) -> Iterator[Rows]:
    first = 0
    for block in blocks:
        count = len(block[mapping.actions[0]])

        def flagged(name: str | None, block=block, count=count, first=first) -> Bool[np.ndarray, " rows"]:
            return np.zeros(count, np.bool_) if name is None else flags(path, name, block[name], first)

        terminals, timeouts = flagged(mapping.terminals), flagged(mapping.timeouts)
        terminated = terminals if mapping.masks is None else ~flagged(mapping.masks)
        successors = mapping.next_observations
        yield Rows(
            observations=joined(path, {name: block[name] for name in mapping.observations}),
            actions=joined(path, {name: block[name] for name in mapping.actions}),
            rewards=np.zeros(count, np.float32) if signal is None else block[signal].reshape(-1),
            terminated=terminated,
            # Where episodes have numbers, a task that is solved early need not end the trajectory.
            ends=terminals | timeouts if mapping.episode is None else np.zeros(count, np.bool_),
            truncated=timeouts if mapping.masks is None else terminals & ~terminated,
            successors=None if successors is None else joined(path, {name: block[name] for name in successors}),
            known=None if mapping.next_known is None else flagged(mapping.next_known),
            episode=None if mapping.episode is None else _numbers(path, mapping.episode, block[mapping.episode], first),
            times=None if mapping.time is None else block[mapping.time].reshape(-1),
        )
        first += count
