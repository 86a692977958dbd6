"""Trajectories that stay in the host's memory or in mapped files; only the windows of a batch are converted."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sorl.data.arrays import aligned, network_actions
from sorl.data.columns import blocks
from sorl.data.paging import mapping, refuse_changed, release
from sorl.data.transitions import Window, Windows


PIECE = 2048
"""Number of windows that are gathered at once; the pages of a mapped file that they touch are some 100 MiB."""
Convert = Callable[[Shaped[np.ndarray, "some size"]], Float[np.ndarray, "some size"]]
"""Converts rows from the logs' units and dtype to the networks' units."""


class Rows(NamedTuple):
    """All steps of a data set in the logs' own units and dtypes, in memory or in mapped files."""

    observations: Shaped[np.ndarray, "rows observation"]
    actions: Shaped[np.ndarray, "rows action"]
    rewards: Shaped[np.ndarray, " rows"]
    terminated: Bool[np.ndarray, " rows"]
    """Whether the episode terminated in a step."""
    lengths: Int[np.ndarray, " trajectories"]
    """Number of steps of each trajectory."""
    final_observations: Shaped[np.ndarray, "trajectories observation"] | None
    """What was seen after each trajectory's last step; None if no transition ends there."""

    @property
    def starts(self) -> Int[np.ndarray, " trajectories"]:
        """The first row of each trajectory."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths


@dataclasses.dataclass(frozen=True)
class HostDataset:
    """Some trajectories of `Rows`; `gather` gives the same bits as `Dataset.gather` for the same data on the device.

    Each step of a trajectory is a transition, except the last one if its successor is not known.
    """

    rows: Rows
    first_rows: Int[np.ndarray, " trajectories"]
    """The first row of each trajectory of this data set."""
    numbers: Int[np.ndarray, " trajectories"]
    """The number of each among the trajectories of `rows`."""
    ends: Int[np.ndarray, " trajectories"]
    """Number of transitions of each trajectory and all before it (a cumulative sum)."""
    network_observation: Convert
    """Observations in the networks' units."""
    network_action: Convert
    """Actions in the networks' units."""

    @classmethod
    def of(
        cls,
        rows: Rows,
        chosen: Bool[np.ndarray, " trajectories"],
        all_steps: Bool[np.ndarray, " trajectories"],
        network_observation: Convert,
        network_action: Convert,
    ) -> "HostDataset | None":
        """The chosen trajectories; None if they hold no transition.

        **Arguments:** `all_steps`, whether each trajectory's last step is a transition too.
        """
        transitions = rows.lengths - ~all_steps
        numbers = np.flatnonzero(chosen & (transitions > 0))
        if not len(numbers):
            return None
        ends = np.cumsum(transitions[numbers], dtype=np.int64)
        return cls(rows, rows.starts[numbers], numbers, ends, network_observation, network_action)

    def __len__(self) -> int:
        """Number of transitions."""
        return int(self.ends[-1])

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes of an observation and of an action."""
        return self.rows.observations.shape[1], self.rows.actions.shape[1]

    @property
    def longest(self) -> int:
        """Number of transitions of the longest trajectory."""
        return int(np.diff(self.ends, prepend=0).max())

    def reward_limits(self) -> Float[np.ndarray, "2"]:
        """The lowest and the highest reward of all transitions."""
        is_start = np.zeros(len(self.rows.rewards) + 1, np.int8)
        np.add.at(is_start, self.first_rows, 1)
        np.add.at(is_start, self.first_rows + np.diff(self.ends, prepend=0), -1)
        inside = np.cumsum(is_start[:-1], dtype=np.int8).view(np.bool_)
        limits = np.array([np.inf, -np.inf], np.float32)
        for block in blocks(self.rows.rewards[:, None]):
            rewards = self.rows.rewards[block][inside[block]].astype(np.float32)
            if len(rewards):
                limits = np.array([min(limits[0], rewards.min()), max(limits[1], rewards.max())])
        return limits

    def gather(self, indices: Int[np.ndarray, "*batch"], window: Window) -> Windows:
        """Gathers the data of the windows that begin at the given transitions, as `Dataset.gather`, in numpy arrays."""
        flat = indices.reshape(-1).astype(np.int64)
        mapped = [array for array in self.rows if array is not None and mapping(array) is not None]
        refuse_changed(*mapped)  # the system kills a process that reads behind the end of a cut file
        # Mapped files are read from their beginning to their end, which is the fastest way for disks and page faults.
        order = np.argsort(flat) if mapped else None
        found: Windows | None = None
        for start in range(0, len(flat), PIECE):
            piece = slice(start, start + PIECE)
            places = piece if order is None else order[piece]
            part = self._gather(flat[places], window)
            if found is None:
                found = jax.tree.map(lambda leaf: aligned((len(flat), *leaf.shape[1:]), leaf.dtype), part)
            for whole, some in zip(jax.tree.leaves(found), jax.tree.leaves(part), strict=True):
                whole[places] = some
            release(*mapped)
        refuse_changed(*mapped)
        assert found is not None, "a batch has at least one window"
        return jax.tree.map(lambda leaf: leaf.reshape(*indices.shape, *leaf.shape[1:]), found)

    def _gather(self, indices: Int[np.ndarray, " windows"], window: Window) -> Windows:
        """The windows of one piece; positions are counted from the first row of each window's trajectory."""
        rows = self.rows
        trajectory = np.searchsorted(self.ends, indices, side="right")
        first, number = self.first_rows[trajectory], self.numbers[trajectory]
        end = self.ends[trajectory]
        position = indices - np.where(trajectory > 0, self.ends[trajectory - 1], 0)
        # Cut the windows where their trajectories end.
        reach = np.minimum(end - indices, window.steps + window.chunk - 1)
        length = np.minimum(reach, window.steps)
        steps, chunk = np.arange(window.steps), np.arange(window.chunk)
        within = (first + position)[:, None] + np.minimum(steps, (length - 1)[:, None])
        # The state after the last step is a row of its own, in which the last action is repeated.
        last = (first + rows.lengths[number] - 1)[:, None]
        chunks = first[:, None] + position[:, None] + np.minimum(chunk, (length - 1)[:, None])
        next_chunks = first[:, None] + (position + length)[:, None] + chunk
        next_chunks = np.minimum(np.minimum(next_chunks, (first + position + reach)[:, None]), last)
        return Windows(
            observation=self._observations(rows.observations[first + position]),
            action=self._actions(rows.actions[chunks]),
            rewards=rows.rewards[within].astype(np.float32),
            masks=1 - rows.terminated[within].astype(np.float32),
            length=None if window.steps == 1 else length.astype(np.int32),
            next_observation=self._next_observations(first + position + length, last[:, 0], number),
            next_action=self._actions(rows.actions[next_chunks]),
        )

    def _next_observations(
        self,
        wanted: Int[np.ndarray, " windows"],
        last: Int[np.ndarray, " windows"],
        number: Int[np.ndarray, " windows"],
    ) -> Float[np.ndarray, "windows observation"]:
        """The observations of the wanted rows; for a row after the last, the trajectory's final observation."""
        found = self._observations(self.rows.observations[np.minimum(wanted, last)])
        behind = wanted > last
        if self.rows.final_observations is not None and behind.any():
            found[behind] = self._observations(self.rows.final_observations[number[behind]])
        return found

    def _observations(self, raw: Shaped[np.ndarray, "windows size"]) -> Float[np.ndarray, "windows size"]:
        return self.network_observation(raw).astype(np.float32, copy=False)

    def _actions(self, raw: Shaped[np.ndarray, "windows chunk size"]) -> Float[np.ndarray, "windows chunk_size"]:
        """Chunks of actions in the networks' units, concatenated."""
        converted = network_actions(self.network_action(raw.reshape(-1, raw.shape[-1])))
        return converted.reshape(len(raw), -1)
