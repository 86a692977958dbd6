"""OGBench's own generation settings, for every data set whose oracle needs no trained expert."""

import dataclasses
import os
import pathlib

from sorl.environments.names import DATA_KINDS, dataset_name
from sorl.system.files import expanded


VALIDATION_SHARE = 10
"""Number of training episodes for each validation episode, as in OGBench's data sets."""

EXPERTISE_NEEDED = ("antmaze", "humanoidmaze", "antsoccer")
"""Environments whose data come from trained experts, which OGBench does not publish."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings that determine the distribution of a data set."""

    dataset: str
    """OGBench's name of the data set."""
    environment: str
    """gymnasium's id of the environment."""
    kind: str
    """`play` (plan oracles), `noisy` (Markov oracles), `navigate` or `stitch` (shortest paths)."""
    episodes: int
    """Training episodes of the official set."""
    steps: int
    """Rows of an episode, including that of the last state."""
    action_noise: float
    """Scale of the noise: of the plan (`play`), of each action (mazes), or an episode's largest scale (`noisy`)."""
    random_actions: float = 0.0
    """Probability that a step takes a uniformly random action instead of the oracle's."""


def _manipulation(environment: str, kind: str) -> Recipe:
    episodes = {"cube-triple": 3000, "puzzle-4x5": 3000, "cube-quadruple": 5000, "puzzle-4x6": 5000}
    random_actions = 0.2 if environment.startswith("puzzle") else 0.1
    return Recipe(
        dataset=f"{environment}-{kind}-v0",
        environment=f"{environment}-v0",
        kind=kind,
        episodes=episodes.get(environment, 1000),
        steps=1001,
        action_noise=0.1,
        random_actions=random_actions if kind == "noisy" else 0.0,
    )


def _pointmaze(environment: str, kind: str) -> Recipe:
    if kind == "stitch":
        episodes, steps = 5000, 201
    elif environment == "pointmaze-giant":
        episodes, steps = 500, 2001
    else:
        episodes, steps = 1000, 1001
    return Recipe(f"{environment}-{kind}-v0", f"{environment}-v0", kind, episodes, steps, action_noise=0.5)


def _recipe(environment: str, kind: str) -> Recipe:
    return (_pointmaze if environment.startswith("pointmaze") else _manipulation)(environment, kind)


RECIPES: dict[str, Recipe] = {
    recipe.dataset: recipe
    for environment, kinds in DATA_KINDS.items()
    if not environment.startswith(EXPERTISE_NEEDED)
    for recipe in (_recipe(environment, kind) for kind in kinds)
}
"""Every recipe, by the name of its data set."""


@dataclasses.dataclass(frozen=True)
class GeneratedSet:
    """A generated data set: its name, its number of training episodes, and its seed."""

    dataset: str
    """OGBench's name, such as `cube-single-play-v0`."""
    episodes: int
    """Training episodes; the validation set has a tenth as many, but at least one."""
    seed: int = 0
    """Random seed; episode `i` depends only on (seed, split, i), so a longer set starts with those of a shorter one."""

    @classmethod
    def of(cls, name: str, episodes: int | None = None, seed: int = 0) -> "GeneratedSet":
        """The set for the name of a data set or single-task environment; `episodes` defaults to the official number.

        Raises a `ValueError` for a name whose data cannot be generated, and for invalid numbers.
        """
        if name.startswith(EXPERTISE_NEEDED):
            raise ValueError(
                f"The data of {name!r} come from trained experts that OGBench does not publish, so they cannot be "
                "generated; download them or give the directory that holds them."
            )
        dataset = dataset_name(name, list(RECIPES))
        episodes = RECIPES[dataset].episodes if episodes is None else episodes
        if episodes < 1 or seed < 0:
            raise ValueError(f"{episodes} episodes from seed {seed} make no data set; give at least 1 and 0.")
        return cls(dataset, episodes, seed)

    @property
    def recipe(self) -> Recipe:
        """The settings of the data set's generation."""
        return RECIPES[self.dataset]

    @property
    def validation_episodes(self) -> int:
        """Number of episodes of the validation set."""
        return max(1, self.episodes // VALIDATION_SHARE)

    @property
    def directory(self) -> pathlib.Path:
        """The set's default directory, one for each size and seed."""
        return generated_root() / f"{self.dataset}-{self.episodes}-episodes-seed-{self.seed}"

    @property
    def command(self) -> str:
        """The command line that generates this set."""
        seed = f" --seed {self.seed}" if self.seed else ""
        return f"python -m sorl.generate {self.dataset} --episodes {self.episodes}{seed}"


def generated_root() -> pathlib.Path:
    """The directory of all generated sets: `$XDG_DATA_HOME/sorl/generated`, or `~/.local/share/sorl/generated`.

    Raises a `FileNotFoundError` if no home directory is known.
    """
    share = pathlib.Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share")
    return expanded(share, "set HOME or XDG_DATA_HOME, or give --out") / "sorl" / "generated"
