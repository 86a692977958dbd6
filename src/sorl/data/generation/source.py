"""Episodes that OGBench's oracles generate, as a source."""

import dataclasses

from sorl.data.generation.generate import generate
from sorl.data.generation.recipes import GeneratedSet
from sorl.data.loaded import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.data.ogbench.load import load_ogbench


@dataclasses.dataclass(frozen=True)
class Generated:
    """Generated episodes of one of OGBench's single-task problems, generated when first loaded."""

    env: str
    """Such as `cube-single-play-singletask-task1-v0`."""
    episodes: int
    """Training episodes."""
    seed: int = 0
    """Seed of the episodes."""

    def load(self, *, normalisation: Normalisation | None = None) -> LoadedData:
        """The data, in OGBench's own units whatever the `normalisation`; raises as `GeneratedSet.of` and `generate`."""
        del normalisation  # OGBench's units are the networks' units
        wanted = GeneratedSet.of(self.env, self.episodes, self.seed)
        generate(wanted)
        return load_ogbench(self.env, generated=wanted)
