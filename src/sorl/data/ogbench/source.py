"""The data source of OGBench's official data sets, which are found or downloaded."""

import dataclasses
import pathlib

from sorl.data.loaded import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.data.ogbench.load import load_ogbench
from sorl.data.residence import Residence


@dataclasses.dataclass(frozen=True)
class Ogbench:
    """The official data set of one of OGBench's single-task problems."""

    env: str
    """Name of the problem, such as `cube-single-play-singletask-task1-v0`."""
    directory: pathlib.Path | None = None
    """Directory to search for the files before OGBench's own cache; default: only that cache."""
    mirrors: tuple[str, ...] = ()
    """Base addresses to try in this order if the official host fails."""
    download: bool = True
    """Download files that are not found."""
    sparse_rewards: bool = False
    """Replace every reward other than 0 by -1."""
    residence: Residence = "auto"
    """Where the data stay: on the device, on the host, or on disk; auto: the fastest for which there is memory."""

    def load(self, *, normalisation: Normalisation | None = None) -> LoadedData:
        """Loads the data in OGBench's own units; `normalisation` is ignored. Raises as `load_ogbench` does."""
        del normalisation  # OGBench's units are the networks' units
        return load_ogbench(
            self.env,
            data_dir=self.directory,
            mirrors=self.mirrors,
            download=self.download,
            sparse_rewards=self.sparse_rewards,
            residence=self.residence,
        )
