"""The data source of a user's own logs in an npz file or a data directory."""

import dataclasses
import pathlib
from collections.abc import Sequence

from sorl.data.loaded import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.data.own_logs.load import load_logs
from sorl.data.own_logs.recording import recording
from sorl.data.recorded.episodes import Recording
from sorl.data.residence import Residence


@dataclasses.dataclass(frozen=True)
class Logs:
    """A user's own logs, an npz file or a data directory; `sorl.load_logs` documents its keys and these options."""

    path: pathlib.Path
    validation_fraction: float = 0.1
    """Share of the episodes held out for validation losses, in [0, 1)."""
    observation_margin: float | None = 1.5
    """Observations are clipped to centre +- margin * half of each logged range (>= 1; None: no clipping)."""
    action_low: float | Sequence[float] | None = None
    """Lower limits of the actions, one for each or one for all; default: those in the file, or the lowest logged."""
    action_high: float | Sequence[float] | None = None
    """Upper limits of the actions; default: those in the file, or else the highest logged actions."""
    sparse_rewards: bool = False
    """Replace every reward other than 0 by -1."""
    reward_scale: float = 1.0
    """Multiply every reward by this."""
    residence: Residence = "auto"
    """Where the data stay: on the device, on the host, or on disk; auto: the fastest for which there is memory."""

    @classmethod
    def reads(cls, path: pathlib.Path) -> bool:
        """Whether this source reads the path of `--data`: it reads everything that no other source reads."""
        return True

    def recording(self) -> Recording:
        """The data as a stream of episodes; raises a `ValueError` for data that cannot be used."""
        return recording(self.path)

    def load(self, *, normalisation: Normalisation | None = None) -> LoadedData:
        """Loads the data in the networks' units.

        **Arguments:** `normalisation`, that of the run that is continued, in place of the file's.

        Raises as `load_logs` does.
        """
        return load_logs(
            self.path,
            validation_fraction=self.validation_fraction,
            observation_margin=self.observation_margin,
            action_low=self.action_low,
            action_high=self.action_high,
            sparse_rewards=self.sparse_rewards,
            reward_scale=self.reward_scale,
            residence=self.residence,
            normalisation=normalisation,
        )
