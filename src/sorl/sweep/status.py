"""`python -m sorl.sweep status DIR`: how a sweep goes, from its directory alone; imports no jax."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from sorl.runs.sweeps import read_plan
from sorl.sweep.table import KINDS, lines, read_states, summary
from sorl.system import command_line


@dataclasses.dataclass(frozen=True)
class Config:
    """Shows how many runs of a sweep are finished, running, failed and missing; from any terminal or node."""

    sweep: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Directory of the sweep."""
    all: bool = False
    """List finished and missing runs too."""


def main(config: Config) -> None:
    """Prints the table."""
    runs = read_plan(config.sweep)[1]
    states = read_states(config.sweep, runs)
    kinds = KINDS if config.all else ("running", "failed", "stopped")
    print("\n".join([summary(runs, states), *lines(runs, states, kinds)]))


def parse(words: Sequence[str]) -> Config:
    """Parses the words behind `python -m sorl.sweep status`."""
    return command_line.parse(Config, words, prog="python -m sorl.sweep status")


def command() -> None:
    """Runs the command line."""
    main(parse(sys.argv[2:]))
