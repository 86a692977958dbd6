"""`python -m sorl.generate ENV`: generates an OGBench data set with OGBench's own environments and oracles."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.generate", stopped="the same command continues after the last finished episode")

import dataclasses
import pathlib
from typing import Annotated

import tyro

from sorl.data.generation.assembling import Form
from sorl.data.generation.generate import generate
from sorl.data.generation.pool import WORKER_TIMEOUT
from sorl.data.generation.recipes import GeneratedSet
from sorl.system import command_line


@dataclasses.dataclass(frozen=True)
class Config:
    """Generates data sets that need no trained expert (cube, scene, puzzle, pointmaze), in OGBench's file format.

    They have the distribution of the official data sets but are not the official files, so tables call them "generated"
    and give the number of episodes.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """Data set (cube-single-play-v0) or one of its tasks (cube-single-play-singletask-task1-v0)."""
    episodes: int | None = None
    """Training episodes; a tenth as many are added for validation; default: as many as in the official set."""
    seed: int = 0
    """Random seed; each episode depends only on this seed and the episode's number."""
    workers: int | None = None
    """Number of worker processes, which does not affect the data; default: one per core."""
    worker_timeout: float = WORKER_TIMEOUT
    """Seconds allowed for one episode; a worker process that takes longer counts as hung, and generation stops."""
    out: pathlib.Path | None = None
    """Directory of the files; default: one below $XDG_DATA_HOME/sorl/generated."""
    format: Form = "npz"
    """OGBench's npz files, or data directories (mapped), which need not fit into memory to be trained on."""


def main(config: Config) -> pathlib.Path:
    """Generates the data set, or only the missing episodes if an earlier run was stopped; **returns** its directory."""
    wanted = GeneratedSet.of(config.env, config.episodes, config.seed)
    directory = generate(
        wanted, directory=config.out, workers=config.workers, worker_timeout=config.worker_timeout, form=config.format
    )
    print(f"{wanted.dataset}, generated, {wanted.episodes} + {wanted.validation_episodes} episodes: {directory}")
    return directory


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.generate"))
