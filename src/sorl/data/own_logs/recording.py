"""A user's own logs as a stream of episodes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sorl.data import checks, records
from sorl.data.mapped.manifest import is_data_directory, refuse_missing, refuse_other_directory
from sorl.data.mapped.recording import recording as directory_recording
from sorl.data.own_logs.file import (
    SCALE,
    WIDE,
    refuse_unclear_ends,
    refuse_wrong_scale,
    stored_names,
)
from sorl.data.own_logs.record import about
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.data.recorded.origin import with_origin
from sorl.data.recorded.rewards import RewardRule
from sorl.data.tables.mapping import Mapping
from sorl.data.tables.npz_table import NpzTable
from sorl.data.tables.recording import recording as table_recording
from sorl.system.files import expanded


def recording(path: Path) -> Recording:
    """The trajectories of an npz file, whose keys `sorl.load_logs` documents, or of a data directory.

    Names of columns, the frame rate and the like come from the record that `sorl.convert` writes beside its files.
    """
    path = expanded(path, "give its full name")
    refuse_missing(path)
    refuse_other_directory(path)
    if is_data_directory(path):
        return directory_recording(path)
    table = NpzTable(path)
    stored, _ = stored_names(path, table.columns)
    scale = {key: stored.pop(key) for key in SCALE if key in stored}
    # The faults that `read_log` refuses and that need only the names and shapes of the arrays.
    refuse_unclear_ends(path, stored)
    shapes = table.shapes(list(stored.values()))
    one_column = {name for name in stored if name not in WIDE and shapes[stored[name]][1:] == (1,)}
    sizes = {name: shapes[key][:1] if name in one_column else shapes[key] for name, key in stored.items()}
    checks.refuse_shapes(path, sizes, WIDE)
    stated = table.shapes(list(scale.values()))
    refuse_wrong_scale(path, {name: stated[key] for name, key in scale.items()}, sizes["actions"][1])
    limits = {key: tuple(map(float, array)) for key, array in checks.read_arrays(path, scale.values()).items()}
    wide = {key: (stored.pop(key),) for key in WIDE if key in stored}
    columns: dict[str, Any] = {**wide, **stored, **limits}
    found = table_recording(table, Mapping(**columns), RewardRule(), "own logs", [path])

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        for number, episode in enumerate(found.read(notes)):
            if episode.actions.dtype.kind in "iu":
                if not number:
                    notes.append(checks.whole_numbers_note(path))
                episode = episode._replace(actions=episode.actions.astype(np.float64))
            yield episode

    left_out = tuple(key for key in found.left_out if key not in scale.values())
    return _with_record(dataclasses.replace(found, read=read, left_out=left_out))


def _with_record(found: Recording) -> Recording:
    """The recording with what the file's record says of it, if the record is of this file."""
    if not records.record_path(found.path).exists():
        return found
    recorded, note = about(found.path, records.fingerprint(found.path)["sha256"])

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        notes += [] if note is None else [note]
        yield from found.read(notes)

    return with_origin(dataclasses.replace(found, read=read), recorded)
