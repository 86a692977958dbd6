"""The directory of a sweep: `sweep.json`, its description and its runs; reading it imports no jax."""

import dataclasses
from pathlib import Path
from typing import Any

from sorl.system.files import read_json


PLAN = "sweep.json"
"""The file of a sweep's description and runs."""
VERSION = 1
"""The version of its format."""


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    directory: str
    """The run directory, relative to that of the sweep."""
    agent: str
    """The agent, with its own options if it was given any."""
    env: str | None
    """The environment; None for own logs without one."""
    seeds: tuple[int, ...]
    """The training seeds of the run."""
    policies: tuple[str, ...]
    """What tells its policies apart: `seed-0`, or `member-3` in a population."""
    settings: dict[str, str]
    """The values of the options that the sweep varies, by the options' names."""
    updates: int
    """Number of updates."""
    evaluated: bool
    """Whether the run ends with a table of evaluations."""
    digest: str
    """Digest of the run's configuration without its seeds."""
    words: tuple[str, ...]
    """More options of `sorl.train` for this run: modules of agents, and logging."""
    source: str
    """One sentence on the source of the run's settings."""

    @property
    def method(self) -> str:
        """The name of the run's method: the agent and the values of the options that the sweep varies."""
        return ", ".join([self.agent, *(f"{name} {value}" for name, value in self.settings.items())])

    @property
    def title(self) -> str:
        """The run in a few words."""
        settings = [f"{name} {value}" for name, value in self.settings.items()]
        seeds = f"seed{'s' * (len(self.seeds) > 1)} {' '.join(map(str, self.seeds))}"
        return ", ".join([f"{self.agent} on {self.env or 'own logs'}", *settings, seeds])


def is_sweep(directory: Path) -> bool:
    """Whether the directory is that of a sweep."""
    return (directory / PLAN).is_file()


def read_plan(directory: Path) -> tuple[dict[str, Any], list[SweepRun]]:
    """The description of a sweep, and its runs.

    Raises a `FileNotFoundError` if the directory holds no sweep, and a `ValueError` if its `sweep.json` is damaged or
    newer; each is one sentence.
    """
    path = directory / PLAN
    if not path.exists():
        raise FileNotFoundError(f"{directory} holds no sweep; give the directory that sorl.sweep printed.")
    content = read_json(path)
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path} has the format {content.get('version')!r}, and this sorl reads {VERSION}; use the sorl that wrote "
            "it."
        )
    try:
        return dict(content["grid"]), [_run(row) for row in content["runs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from a copy, or write it again.") from error


def _run(row: Any) -> SweepRun:
    """A run from its JSON form; raises a `ValueError`, `TypeError` or `KeyError` if something is wrong with it."""
    directory, texts = row["directory"], ("directory", "agent", "digest", "source")
    right = (
        all(isinstance(text, str) for text in (*(row[name] for name in texts), row["env"] or "", *row["words"]))
        and all(type(number) is int for number in (row["updates"], *row["seeds"]))
        and all(isinstance(name, str) for name in row["policies"] or [None])
        and isinstance(row["settings"], dict)
        and isinstance(row["evaluated"], bool)
    )
    if not right:
        raise ValueError(f"the run {directory!r} has a field of another kind")
    parts = Path(directory).parts
    if len(parts) < 3 or ".." in parts or Path(directory).is_absolute():
        raise ValueError(f"{directory!r} is no run directory of a sweep")
    return SweepRun(**row | {name: tuple(row[name]) for name in ("seeds", "policies", "words")})


def begun_runs(directory: Path) -> dict[Path, SweepRun]:
    """The runs of a sweep that have begun, by their run directories."""
    found = {directory / run.directory: run for run in read_plan(directory)[1]}
    return {path: run for path, run in found.items() if (path / "config.json").exists()}
