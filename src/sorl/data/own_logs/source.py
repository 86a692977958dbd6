"""The data source of a user's own logs in an npz file or a data directory."""

import dataclasses
import pathlib

from sorl.data.loaded import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.data.own_logs.load import load_file
from sorl.data.own_logs.options import LogOptions
from sorl.data.own_logs.recording import recording
from sorl.data.recorded.episodes import Recording


@dataclasses.dataclass(frozen=True)
class Logs(LogOptions):
    """A user's own logs, an npz file or a data directory; `sorl.load_logs` documents its keys."""

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
        return load_file(self, normalisation=normalisation)
