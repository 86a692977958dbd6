"""The data source of HDF5 files in D4RL's or robomimic's layout."""

import dataclasses
import pathlib
from typing import final

from sorl.data.hdf5 import d4rl, file as hdf5, robomimic
from sorl.data.recorded.episodes import Recording
from sorl.data.recorded.rewards import RewardRule
from sorl.data.recorded.source import RecordedSource
from sorl.system.files import expanded


@final
@dataclasses.dataclass(frozen=True)
class Hdf5(RecordedSource):
    """An HDF5 file in D4RL's or robomimic's layout (needs `sorl[hdf5]`)."""

    split: str | None = None
    """The list of demonstrations in `mask/` to read; default: all, of which `mask/valid` is held out."""

    @classmethod
    def reads(cls, path: pathlib.Path) -> bool:
        """Whether the path has a suffix of HDF5."""
        return path.suffix.lower() in (".hdf5", ".h5", ".hdf")

    def recording(self) -> Recording:
        """As `RecordedSource.recording`; the layout is recognised by the file's content."""
        path, rule = expanded(self.path, "give its full name"), RewardRule.of(self.reward)
        with hdf5.opened(path) as file:
            keys = list(file)
        if "data" in keys:
            return robomimic.recording(path, self.observation_keys, rule, self.split)
        if self.split is not None:
            raise ValueError(f"{path} has no splits, as robomimic's files have; leave --split out.")
        if "actions" in keys:
            return d4rl.recording(path, self.observation_keys, rule)
        raise ValueError(
            f"{path} has {', '.join(keys) or 'nothing'} instead of D4RL's (observations, actions, ...) or robomimic's "
            "(data/demo_0, ...) layout; give a file in one of them."
        )
