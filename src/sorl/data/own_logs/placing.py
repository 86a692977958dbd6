"""Puts checked trajectories on the device, or leaves them on the host."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sorl.data.arrays import aligned
from sorl.data.columns import blocks
from sorl.data.host import HostDataset, Rows
from sorl.data.loaded import to_device
from sorl.data.normalisation import Normalisation
from sorl.data.own_logs import scales
from sorl.data.own_logs.file import Log
from sorl.data.paging import mapping
from sorl.data.residence import Size
from sorl.data.transitions import Dataset


Placed = Dataset | HostDataset | None


def size_of(log: Log) -> Size:
    """The size of trajectories that were read."""
    arrays = [*log.rows.values(), log.terminated, log.successors]
    return Size(
        rows=len(log.ends),
        observation_size=log.rows["observations"].shape[1],
        action_size=log.rows["actions"].shape[1],
        raw_bytes=sum(array.nbytes for array in arrays),
        mappable=mapping(log.rows["observations"]) is not None,
    )


def host_datasets(
    log: Log, parts: Sequence[Bool[np.ndarray, " rows"]], normalisation: Normalisation
) -> Sequence[HostDataset | None]:
    """The transitions of each part of the rows, left as they were logged; None for a part without any."""
    rows = Rows(
        observations=log.rows["observations"],
        actions=log.rows["actions"],
        rewards=log.rows["rewards"],
        terminated=log.terminated,
        lengths=log.lengths,
        final_observations=log.successors,
    )
    all_steps = log.last_has_outcome()
    to_network = scales.observation_map(normalisation), scales.action_map(normalisation)
    return [HostDataset.of(rows, part[log.ends], all_steps, *to_network) for part in parts]


def device_datasets(
    log: Log, parts: Sequence[Bool[np.ndarray, " rows"]], normalisation: Normalisation
) -> Sequence[Dataset | None]:
    """The transitions of each part of the rows on the device, in the networks' units; None for a part without any.

    Each trajectory ends with an extra row, its last next observation. The log's rows are removed as soon as they are
    converted.
    """
    layouts = [_Layout.of(log.ends, chosen) for chosen in parts]
    observations = _converted(
        log.rows.pop("observations"), log.successors, layouts, scales.observation_map(normalisation)
    )
    actions = log.rows.pop("actions")
    # The action in the extra row is not known; repeat the trajectory's last action.
    actions = _converted(actions, actions[log.ends], layouts, scales.action_map(normalisation))
    rewards = log.rows.pop("rewards")
    has_outcome = log.has_outcome()
    return [
        to_device(
            observations=part_observations,
            actions=part_actions,
            rewards=layout.column(rewards, behind=0),
            masks=layout.column(1 - log.terminated.astype(np.float32), behind=1),
            is_start=layout.column(has_outcome, behind=0).astype(np.bool_),
        )
        if has_outcome[layout.chosen].any()
        else None
        for layout, part_observations, part_actions in zip(layouts, observations, actions, strict=True)
    ]


class _Layout(NamedTuple):
    """The positions of one part's rows in its data set."""

    chosen: Bool[np.ndarray, " rows"]
    place: Int[np.ndarray, " rows"]
    """The position of each chosen row."""
    behind: Int[np.ndarray, " successors"]
    """The position of the extra last row of each chosen trajectory."""
    trajectories: Bool[np.ndarray, " trajectories"]
    """Whether each trajectory is chosen."""
    rows: int

    @classmethod
    def of(cls, ends: Bool[np.ndarray, " rows"], chosen: Bool[np.ndarray, " rows"]) -> "_Layout":
        last = ends & chosen
        place = np.cumsum(chosen, dtype=np.int32) + np.cumsum(last, dtype=np.int32) - last - 1
        return cls(chosen, place, place[last] + 1, chosen[ends], int(chosen.sum() + last.sum()))

    def column(self, values: Shaped[np.ndarray, " rows"], behind: int) -> Float[np.ndarray, " placed"]:
        """One number for each row, with the value `behind` in the extra last rows."""
        placed = np.full(self.rows, behind, np.float32)
        placed[self.place[self.chosen]] = values[self.chosen]
        return placed


def _converted(
    array: Shaped[np.ndarray, "rows size"],
    successors: Shaped[np.ndarray, "trajectories size"],
    layouts: Sequence[_Layout],
    convert: Callable[[Shaped[np.ndarray, "some size"]], Float[np.ndarray, "some size"]],
) -> list[Float[np.ndarray, "placed size"]]:
    """The rows of each part and its extra last rows, converted one block at a time."""
    placed = [aligned((layout.rows, array.shape[1]), np.dtype(np.float32)) for layout in layouts]
    for block in blocks(array):
        converted = convert(array[block])
        for layout, rows in zip(layouts, placed, strict=True):
            chosen = layout.chosen[block]
            rows[layout.place[block][chosen]] = converted[chosen]
    converted = convert(successors)
    for layout, rows in zip(layouts, placed, strict=True):
        rows[layout.behind] = converted[layout.trajectories]
    return placed
