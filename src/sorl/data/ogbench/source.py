"""OGBench's official data sets as a source: found, or downloaded."""

import dataclasses
import pathlib

from sorl.data.loaded import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.data.ogbench.load import load_ogbench


@dataclasses.dataclass(frozen=True)
class Ogbench:
    """The official data set of one of OGBench's single-task problems."""

    env: str
    """Such as `cube-single-play-singletask-task1-v0`."""
    directory: pathlib.Path | None = None
    """Directory to look for the files in before OGBench's own cache; default: only that cache."""
    mirrors: tuple[str, ...] = ()
    """Base addresses to try in this order if the official host fails."""
    download: bool = True
    """Download files that are not found."""

    def load(self, *, normalisation: Normalisation | None = None) -> LoadedData:
        """The data, in OGBench's own units whatever the `normalisation`; raises as `load_ogbench`."""
        del normalisation  # OGBench's units are the networks' units
        return load_ogbench(self.env, data_dir=self.directory, mirrors=self.mirrors, download=self.download)
