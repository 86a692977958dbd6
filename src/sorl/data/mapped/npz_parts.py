"""Makes data directories of OGBench's npz files, and of directories of them, as large public sets are laid out."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sorl.data import checks, records
from sorl.data.mapped.writer import MappedWriter


VALIDATION = "-val.npz"
"""The end of the names of files of held-out episodes."""


def parts(path: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The npz files of a set, in the order of their names: those to train on, and those held out.

    **Arguments:** `path`, one npz file, beside which `{name}-val.npz` is held out, or a directory of npz files, of
    which those that end in `-val.npz` are held out.

    Raises a `FileNotFoundError` if there is none to train on.
    """
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        train = [file for file in files if not file.name.endswith(VALIDATION)]
        held_out = [file for file in files if file.name.endswith(VALIDATION)]
    else:
        beside = path.with_name(path.stem + VALIDATION)
        train, held_out = [path] if path.exists() else [], [beside] if beside.exists() else []
    if not train:
        raise FileNotFoundError(f"There is no npz file to train on at {path}; give a file or a directory of files.")
    return train, held_out


def is_set(path: pathlib.Path) -> bool:
    """Whether a path is an OGBench set: its first npz file holds the states of a simulator, and no rewards."""
    if not path.is_dir() and path.suffix != ".npz":
        return False
    try:
        first = parts(path)[0][0]
    except FileNotFoundError:
        return False
    keys = checks.stored_keys(first)
    return "qpos" in keys and "rewards" not in keys


def map_set(path: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Makes the data directory `out` of an OGBench set, and `{out}-val` of its held-out episodes, if it has any.

    The memory needed is that of one file. **Returns:** the directories. Raises as `parts` and `map_npz` do.
    """
    train, held_out = parts(path)
    if out.exists():
        raise FileExistsError(f"{out} exists already; remove it, or give another directory.")
    made = []
    # The training set comes last, which completes the set.
    for files, target in ((held_out, out.with_name(f"{out.name}-val")), (train, out)):
        if files:
            made.append(map_npz(files, target))
    return made[::-1]


def map_npz(
    files: Sequence[pathlib.Path], out: pathlib.Path, *, provenance: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Makes a data directory of npz files in OGBench's format, each of whole episodes.

    **Arguments:** `provenance`, the origin (None: that of the files, with their digests).

    **Returns:** the directory. Raises a `ValueError`, one sentence, for a file that is damaged or ends within an
    episode, and a `FileExistsError` if `out` exists.
    """
    if provenance is None:
        found = [{"name": file.name, **(records.verified(file) or records.fingerprint(file))} for file in files]
        provenance = {"source": found[0].get("source", "unrecorded"), "files": found}
    with MappedWriter(out, provenance=provenance) as writer:
        for file in files:
            _append(writer, file)
    return out


def _append(writer: MappedWriter, file: pathlib.Path) -> None:
    keys = checks.stored_keys(file)
    arrays = checks.read_arrays(file, ("observations", "actions", "terminals"), keys)
    checks.refuse_wrong_shapes(file, {"observations": arrays["observations"], "actions": arrays["actions"]}, arrays)
    ends = checks.flags(file, "terminals", arrays["terminals"])
    checks.refuse_open_end(file, ends)
    del arrays["terminals"]  # the lengths of the episodes say the same
    start = 0
    for end in np.flatnonzero(ends) + 1:
        writer.append({name: values[start:end] for name, values in arrays.items()})
        start = int(end)
