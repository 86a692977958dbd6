"""`python -m sorl.inspect DATA`: what recorded data hold, and what to do about it before training."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.inspect.__main__")

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from sorl.data.sources import FORMAT_OPTIONS
from sorl.inspect.page import write_page
from sorl.inspect.report import inspected
from sorl.inspect.source import recording_of
from sorl.inspect.tables import text
from sorl.system import command_line
from sorl.system.files import refuse_overwriting
from sorl.system.progress import Progress
from sorl.system.ranges import refuse_outside


@dataclasses.dataclass(frozen=True)
class Config:
    """Reports on recorded data: counts, ends, every dimension, rewards and values, duplicates, coverage, and warnings.

    It reads each episode once and keeps some 40 bytes a step; histograms and nearest neighbours are of sampled steps.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Data in any format that `--data` of `sorl.train` reads, or OGBench's name of a single-task data set."""
    json: bool = False
    """Print all facts as JSON instead of tables."""
    html: Path | None = None
    """Also write a self-contained HTML page with pictures (pip install 'sorl[plots]'); default: none."""
    discount: float = 0.99
    """Discount that training will use, for the values to expect."""
    validation_fraction: float = 0.1
    """Fraction of the episodes that training will hold out."""
    observation_keys: tuple[str, ...] | None = None
    """As `--data.observation-keys` of `sorl.train`."""
    reward: tuple[str, ...] | None = None
    """As `--data.reward` of `sorl.train`."""
    split: str | None = None
    """As `--data.split` of `sorl.train`."""
    columns: Path | None = None
    """As `--data.columns` of `sorl.train`."""
    data_dir: Path | None = None
    """Directory to search for OGBench's files first; default: only OGBench's own cache."""
    episodes: int | None = None
    """Number of generated episodes of OGBench's task; default: the official data set."""
    quiet: bool = False
    """Hide the progress bar."""

    def __post_init__(self):
        refuse_outside(self, discount=(0.0, 1.0), validation_fraction=(0.0, 0.999), episodes=(1, 10_000_000))


def main(config: Config) -> dict[str, Any]:
    """Prints the report and writes its page; **returns** the facts."""
    options = {name: getattr(config, name) for name in FORMAT_OPTIONS}
    recording = recording_of(config.data, options, directory=config.data_dir, episodes=config.episodes)
    if config.html is not None:
        refuse_overwriting(config.html, [recording.path, *recording.files])
    with Progress(recording.steps, quiet=config.quiet, unit="steps") as progress:
        facts = inspected(
            recording,
            discount=config.discount,
            validation_fraction=config.validation_fraction,
            advance=progress.advance,
        )
    print(json.dumps(_finite(facts), indent=2, allow_nan=False) if config.json else text(facts))
    if config.html is not None:
        write_page(config.html, facts)
        print(f"Wrote {config.html}", file=sys.stderr if config.json else sys.stdout)
    return facts


def _finite(value: Any) -> Any:
    """The facts with None for what is infinite, which JSON cannot represent."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.inspect"))
