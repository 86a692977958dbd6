"""The sources of data, each a frozen dataclass of its options with `load()`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sorl.data.generation.source import Generated
from sorl.data.hdf5.source import Hdf5
from sorl.data.lerobot.meta import INFO as LEROBOT_INFO
from sorl.data.lerobot.source import LeRobot
from sorl.data.mapped.manifest import NAME
from sorl.data.minari.source import Minari
from sorl.data.ogbench.source import Ogbench
from sorl.data.own_logs.source import Logs
from sorl.data.tables.source import TableFile
from sorl.environments import minari_sets


Source = Ogbench | Generated | Hdf5 | LeRobot | Minari | TableFile | Logs
"""The sources of training data.

`source.load(normalisation=...)` returns `LoadedData`: a `Dataset` on the device in the networks' units (or a
`HostDataset`, of the same numbers), a held-out one or None, the units (`Normalisation`), and the origin of the data
(`provenance`).

To add a source, such as another file format, write one file with a frozen dataclass:

- its fields are its options, each with a docstring; a source of the user's own data has `path`, the value of `--data`;
- `load(self, *, normalisation=None) -> LoadedData` reads it. A format of episodes is a
  `sorl.data.recorded.source.RecordedSource`, which has `load` already: it defines `recording()`, a stream of episodes
  that `sorl.convert` and `sorl.inspect` read too. Bad input is a `ValueError` of one sentence: what was found, what was
  expected, what to do;
- `reads(path) -> bool`, a class method, says whether `--data path` means this source, by the path's form or suffix.

Then name it in this union and, before `Logs`, in `USER_SOURCES`. On the command line its options are those fields of
`sorl.config.options.DataConfig` that have the same names: an option that no source had before is a new field there.
"""

FORMAT_OPTIONS = ("observation_keys", "reward", "split", "columns")
"""Options that only some formats have."""
UserSource = Hdf5 | LeRobot | Minari | TableFile | Logs
"""The sources of the user's own data, which have `path` and `reads`."""
USER_SOURCES: tuple[type[UserSource], ...] = (Hdf5, LeRobot, TableFile, Minari, Logs)
"""The possible sources for `--data`; the first one whose `reads` accepts the path is used, and the last accepts all."""


DIRECTORY_MARKS = (NAME, LEROBOT_INFO, str(minari_sets.METADATA))
"""The file by which each format of directories is recognised."""


def user_source(path: Path, columns: Path | None = None) -> type[UserSource]:
    """The source that reads a path of `--data`; a file of `columns` says that it is a table.

    Raises a `ValueError` for a directory in several layouts at once.
    """
    if columns is not None:
        return TableFile
    marks = [mark for mark in DIRECTORY_MARKS if (path / mark).is_file()]
    if len(marks) > 1:
        raise ValueError(f"{path} has {' and '.join(marks)}, which are of different formats; keep one of them.")
    return next(kind for kind in USER_SOURCES if kind.reads(path))


def absolute(path: Path) -> Path:
    """The absolute path of the user's data, also of a Minari data set that is named by its id."""
    found = minari_sets.directory_of(path)
    if found is None and minari_sets.PREFIX in str(path):
        return path
    return (path if found is None else found).expanduser().absolute()


def source_of(path: Path, **options: Any) -> UserSource:
    """The source of some data, with options of `FORMAT_OPTIONS` (None: the default).

    Raises a `ValueError` if the data's format does not have one of the options.
    """
    kind = user_source(path, options.get("columns"))
    refuse_unused(kind, path, options)
    return kind(path, **{name: value for name, value in options.items() if value is not None})


def refuse_unused(kind: type[UserSource], path: Path, options: Mapping[str, Any]) -> None:
    """Raises a `ValueError` if an option has a value but data of this kind do not use it."""
    known = {field.name for field in dataclasses.fields(kind)}
    for name, value in options.items():
        if value is not None and name not in known:
            words = " ".join(value) if isinstance(value, tuple) else value
            raise ValueError(
                f"{name.replace('_', '-')} is {words}, but data such as {path} do not use it; leave it out, or give "
                "data in a format that does."
            )
