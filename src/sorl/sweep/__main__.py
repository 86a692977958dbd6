"""Many runs: `python -m sorl.sweep`, and `python -m sorl.sweep paper`, `status`, `results` and `submit`."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any


COMMANDS = {name: f"sorl.sweep.{name}" for name in ("run", "status", "results", "submit")}
"""The modules of the commands, by the first word of the command line."""


def module_of(words: Sequence[str]) -> str:
    """The module of the command that the first word names; without one, that of `run`."""
    return COMMANDS.get(words[0] if words else "run", COMMANDS["run"])


if __name__ == "__main__":
    from sorl.system import entry  # before the commands' imports, which take seconds

    entry.run(module_of(sys.argv[1:]), stopped="the same command continues with what is not finished")


def parse(words: Sequence[str]) -> Any:
    """Parses the words behind `python -m sorl.sweep`."""
    module = importlib.import_module(module_of(words))
    return module.parse(words[1:] if module_of(words) != COMMANDS["run"] else words)


def command() -> int | None:
    """Runs the command line."""
    return importlib.import_module(module_of(sys.argv[1:])).command()
