"""`python -m sorl.convert SOURCE OUT`: converts recorded data of other formats into own logs or a data directory."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.convert.__main__")

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

import tyro

from sorl.convert import ogbench_set
from sorl.convert.convert import convert
from sorl.data.mapped.npz_parts import is_set
from sorl.data.own_logs.source import Logs
from sorl.data.sources import FORMAT_OPTIONS, source_of
from sorl.system import command_line
from sorl.system.files import expanded


@dataclasses.dataclass(frozen=True)
class Config:
    """Converts recorded data into own logs (OUT.npz), or a data directory for sets larger than memory (OUT).

    It reads what `--data` of `sorl.train` reads, one episode at a time. Every number stays the same, bit for bit,
    and so do terminations and truncations. OUT is written whole or not at all.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Data in any format that `--data` reads, or an OGBench set: an npz file, or a directory of npz files."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """File or directory to write, which must not exist: NAME.npz, or a directory."""
    observation_keys: tuple[str, ...] | None = None
    """Arrays to concatenate as observations, in this order, for data that have several; default: all vectors of
    numbers in the data's own order."""
    reward: tuple[str, ...] | None = None
    """Where rewards come from: success-at-end (1 at the last step of episodes that end in success), last-step (1 at the
    last step of each), or from COLUMN; default: as logged."""
    split: str | None = None
    """List of demonstrations in mask/ of a robomimic file to convert; default: all."""
    columns: Path | None = None
    """TOML file that names the columns of an npz, parquet or CSV file; default: {name}.toml beside it."""
    quiet: bool = False
    """Hide the progress bar."""


def main(config: Config) -> Path:
    """Converts the data; **returns** the path written."""
    options = {name: getattr(config, name) for name in FORMAT_OPTIONS}
    out = expanded(config.out, "give its full name")
    if not out.name:
        raise ValueError(f"OUT is {config.out}, which is a directory that exists; give the name of a new one.")
    source = source_of(config.source, **options)
    if isinstance(source, Logs) and is_set(path := expanded(config.source, "give its full name")):
        print(ogbench_set.convert(path, out))
        return out
    recording = source.recording()
    done = convert(recording, out, quiet=config.quiet)
    for note in done.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(done.text())
    place = shlex.quote(str(out))
    env = f" --env {shlex.quote(recording.environment)}" if recording.environment else ""
    print(f"Next:\n  python -m sorl.inspect {place}\n  python -m sorl.train --data {place}{env}")
    return out


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.convert"))
