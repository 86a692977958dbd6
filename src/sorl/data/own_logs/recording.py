"""A user's own logs as a stream of episodes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sorl.data import checks, npz, records
from sorl.data.mapped.manifest import is_data_directory, refuse_missing, refuse_other_directory
from sorl.data.mapped.recording import recording as directory_recording
from sorl.data.own_logs.file import SCALE, WIDE, read_header, refuse_wrong_scale
from sorl.data.own_logs.record import about, record_of
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
    with npz.opened(path) as file:
        stored, unused, shapes = read_header(path, file)
        scale = {name: stored.pop(name) for name in SCALE if name in stored}
        refuse_wrong_scale(path, {name: shapes[name] for name in scale}, shapes["actions"][1])
        limits = {name: tuple(map(float, file.read(key))) for name, key in scale.items()}
    columns: dict[str, Any] = {name: (key,) if name in WIDE else key for name, key in stored.items()} | limits
    found = table_recording(NpzTable(path), Mapping(**columns), RewardRule(), "own logs", [path])

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        for number, episode in enumerate(found.read(notes)):
            if episode.actions.dtype.kind in "iu":
                if not number:
                    notes.append(checks.whole_numbers_note(path))
                episode = episode._replace(actions=episode.actions.astype(np.float64))
            yield episode

    return _with_record(dataclasses.replace(found, read=read, left_out=tuple(unused)))


def _with_record(found: Recording) -> Recording:
    """The recording with what the file's record says of it, if the record is of this file."""
    if not record_of(found.path).exists():
        return found
    recorded, note = about(found.path, records.fingerprint(found.path)["sha256"])

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        notes += [] if note is None else [note]
        yield from found.read(notes)

    return with_origin(dataclasses.replace(found, read=read), recorded)
