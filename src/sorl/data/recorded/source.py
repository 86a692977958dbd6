"""Recorded data of any format as a source of training data."""

import abc
import dataclasses
import pathlib
import warnings

import numpy as np

from sorl.data.loaded import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.data.own_logs.file import Log
from sorl.data.own_logs.load import load_log
from sorl.data.own_logs.options import LogOptions
from sorl.data.recorded import checks
from sorl.data.recorded.digest import digest
from sorl.data.recorded.episodes import Recording


@dataclasses.dataclass(frozen=True)
class RecordedSource(LogOptions, abc.ABC):
    """The options and the loading that all formats of episodes share; a format defines `reads` and `recording`."""

    observation_keys: tuple[str, ...] | None = None
    """The arrays that are concatenated as observations, in this order; default: the format's own choice."""
    reward: tuple[str, ...] | None = None
    """Where rewards come from: success-at-end, last-step, or from COLUMN; default: as logged."""

    @classmethod
    @abc.abstractmethod
    def reads(cls, path: pathlib.Path) -> bool:
        """Whether this source reads the path of `--data`."""

    @abc.abstractmethod
    def recording(self) -> Recording:
        """The data as a stream of episodes; raises a `ValueError` for data that cannot be used."""

    def load(self, *, normalisation: Normalisation | None = None) -> LoadedData:
        """Loads the data in the networks' units.

        **Arguments:** `normalisation`, that of the run that is continued, in place of the data's.

        Raises a `ValueError`, one sentence, for data that cannot be used.
        """
        return load_log(log_of(self.recording()), self, normalisation=normalisation)


def log_of(recording: Recording) -> Log:
    """All episodes of a recording in memory, as training takes them."""
    notes: list[str] = []
    episodes = list(checks.episodes(recording, notes))
    for note in notes:
        warnings.warn(note, stacklevel=3)
    steps = [len(episode.actions) for episode in episodes]
    ends = np.zeros(sum(steps), np.bool_)
    ends[np.cumsum(steps) - 1] = True
    limits = recording.action_limits
    return Log(
        path=recording.path,
        rows={
            "observations": np.concatenate([one.observations[: len(one.actions)] for one in episodes]),
            "actions": np.concatenate([one.actions for one in episodes]),
            "rewards": np.concatenate([one.rewards for one in episodes]),
        },
        ends=ends,
        terminated=np.concatenate([one.terminated for one in episodes]),
        successors=np.stack([one.observations[-1] for one in episodes]),
        has_successor=np.array([one.has_last_state for one in episodes]),
        scale={} if limits is None else {"action_low": np.array(limits[0]), "action_high": np.array(limits[1])},
        unused_keys=recording.left_out,
        notes=tuple(notes),
        origin={**digest(recording.files, recording.path), **recording.about()},
        held_out=np.array([one.name in recording.held_out for one in episodes]) if recording.held_out else None,
    )
