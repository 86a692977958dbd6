"""Episodes, the common form of all recorded data: each format's reader yields them, and writers take them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped


class LoggedEpisode(NamedTuple):
    """One trajectory in its own units and dtypes."""

    observations: Shaped[np.ndarray, "states observation"]
    """The state before each step and after the last one, [steps + 1]; [steps] if the last one was not recorded."""
    actions: Shaped[np.ndarray, "steps action"]
    rewards: Shaped[np.ndarray, " steps"]
    terminated: Bool[np.ndarray, " steps"]
    """Whether the task ended with a step, so that no value follows; usually only in the last step."""
    truncated: bool
    """Whether the log says that the trajectory was cut, such as by a time limit."""
    name: str
    """Its name in the source, such as `demo_3` or `episode 12`."""
    first_row: int | None = None
    """The row of its first step in a source that is a table."""
    times: Shaped[np.ndarray, " steps"] | None = None
    """The time of each step in seconds, if the source has it."""

    @property
    def has_last_state(self) -> bool:
        """Whether the state after the last step was recorded."""
        return len(self.observations) > len(self.actions)

    def place(self, step: int) -> str:
        """The words that name one step in a message."""
        if self.first_row is None:
            return f"step {step} of {self.name}"
        return f"row {self.first_row + step} ({self.name})"


Read = Callable[[list[str]], Iterator[LoggedEpisode]]
"""Reads the episodes from the first on; appends a sentence to the list for what it corrects."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recorded data set: how to read its episodes, and what is known of it before."""

    path: Path
    form: str
    """The format in words, such as "D4RL HDF5"."""
    read: Read
    """Use `sorl.data.recorded.checks.episodes`, which checks what this yields."""
    observation_names: tuple[str, ...]
    """The name of each observation column, in the order of the columns."""
    action_names: tuple[str, ...]
    files: tuple[Path, ...]
    """The files that were read, for the digest."""
    steps: int | None = None
    """Total number of steps; None if it is not known before reading."""
    frame_rate: float | None = None
    """Steps per second."""
    environment: str | None = None
    """The name of the environment that it was recorded in, for `--env`."""
    reference_scores: tuple[float, float] | None = None
    """The mean returns that count as 0 and 1 in the normalised score."""
    held_out: frozenset[str] = frozenset()
    """The names of the episodes that the source itself keeps for validation."""
    beside: Path | None = None
    """The data beside it that training holds out in place of its own episodes."""
    action_limits: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """The lowest and highest actions that the source states."""
    left_out: tuple[str, ...] = ()
    """Names of arrays that are not read, such as images."""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How it was read (keys, rewards, version), JSON-able."""

    def about(self) -> dict[str, Any]:
        """What is known of the data, JSON-able, without digests."""
        return {
            "form": self.form,
            "observation_names": list(self.observation_names),
            "action_names": list(self.action_names),
            "frame_rate": self.frame_rate,
            "environment": self.environment,
            "reference_scores": None if self.reference_scores is None else list(self.reference_scores),
            "left_out": list(self.left_out),
            **self.details,
        }
