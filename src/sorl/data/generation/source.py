"""The data source of episodes that OGBench's oracles generate."""

import dataclasses

from sorl.data.generation.generate import generate
from sorl.data.generation.recipes import GeneratedSet
from sorl.data.loaded import LoadedData
from sorl.data.mapped.manifest import is_data_directory
from sorl.data.normalisation import Normalisation
from sorl.data.ogbench.load import load_ogbench
from sorl.data.residence import Residence


@dataclasses.dataclass(frozen=True)
class Generated:
    """Generated episodes for one of OGBench's single-task problems; the first load generates them."""

    env: str
    """Name of the problem, such as `cube-single-play-singletask-task1-v0`."""
    episodes: int
    """Number of training episodes."""
    seed: int = 0
    """Random seed of the episodes."""
    sparse_rewards: bool = False
    """Replace every reward other than 0 by -1."""
    residence: Residence = "auto"
    """Where the data stay: on the device, on the host, or on disk; auto: the fastest for which there is memory."""

    def load(self, *, normalisation: Normalisation | None = None) -> LoadedData:
        """Loads the data in OGBench's own units; `normalisation` is ignored.

        Raises as `GeneratedSet.of` and `generate` do.
        """
        del normalisation  # OGBench's units are the networks' units
        wanted = GeneratedSet.of(self.env, self.episodes, self.seed)
        # A set that exists in either form is used, unless only data directories will do.
        mapped = self.residence == "disk" or is_data_directory(wanted.directory / wanted.dataset)
        generate(wanted, form="mapped" if mapped else "npz")
        return load_ogbench(self.env, generated=wanted, sparse_rewards=self.sparse_rewards, residence=self.residence)
