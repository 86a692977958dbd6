"""Reads a data directory as a user's own logs."""

import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from sorl.data.checks import whole_numbers_note
from sorl.data.mapped.manifest import ArrayFile, Manifest, read_manifest
from sorl.data.mapped.reader import open_arrays, read_whole, verify
from sorl.data.own_logs.file import Log
from sorl.data.residence import Size


NEEDED = ("observations", "actions", "rewards", "terminations", "final_observations", "final_known")
"""The arrays of own logs, beside the lengths of the episodes."""
UNUSED = ("truncations",)
"""Arrays that own logs may hold and that training does not need: an episode that did not terminate was cut."""


def size(directory: pathlib.Path, names: tuple[str, ...] = NEEDED) -> Size:
    """The size of a data directory, counting the named arrays only."""
    manifest = read_manifest(directory)
    raw = sum(array.size for name, array in manifest.arrays.items() if name in names)
    sizes = (manifest.arrays[name].shape[1] for name in ("observations", "actions"))
    return Size(manifest.rows, *sizes, raw_bytes=raw, mappable=True)


def read_arrays(
    directory: pathlib.Path, names: tuple[str, ...], *, in_memory: bool
) -> tuple[Manifest, dict[str, np.ndarray]]:
    """The named arrays and `episode_lengths` of a data directory, after comparing all of them with their checksums.

    **Arguments:** `in_memory`, whether to read them into memory; otherwise they are mapped, with little in memory.

    Raises a `ValueError` or `FileNotFoundError`, one sentence, for an array or a block that is missing or damaged.
    """
    manifest, arrays = open_arrays(directory)
    missing = [name for name in names if name not in manifest.arrays]
    if missing:
        raise ValueError(f"{directory} lacks {', '.join(missing)}: it holds {', '.join(manifest.arrays)}; add them.")
    wanted = (*names, "episode_lengths")
    if in_memory:
        return manifest, {name: read_whole(directory, name, manifest.arrays[name]) for name in wanted}
    verify(directory, wanted)
    return manifest, {name: arrays[name] for name in wanted}


def read_directory(directory: pathlib.Path, *, in_memory: bool) -> Log:
    """A data directory as checked trajectories; the arguments and errors are those of `read_arrays`.

    The writer of the directory has checked every number, and the checksums say that they are still the same.
    """
    manifest, arrays = read_arrays(directory, NEEDED, in_memory=in_memory)
    _refuse_other_kinds(directory, manifest.arrays)
    ends = np.zeros(manifest.rows, np.bool_)
    ends[np.cumsum(arrays["episode_lengths"]) - 1] = True
    unused = tuple(name for name in manifest.arrays if name not in arrays and name not in UNUSED)
    notes = []
    if arrays["actions"].dtype.kind in "iu":
        notes.append(whole_numbers_note(directory))
    if unused:
        notes.append(f"{directory.name} holds arrays that are not used: {', '.join(unused)}.")
    for note in notes:
        warnings.warn(note, stacklevel=3)
    bounds = manifest.action_range
    return Log(
        path=directory,
        rows={name: arrays[name] for name in ("observations", "actions", "rewards")},
        ends=ends,
        terminated=arrays["terminations"],
        successors=arrays["final_observations"],
        has_successor=arrays["final_known"],
        scale={} if bounds is None else dict(zip(("action_low", "action_high"), map(np.array, bounds), strict=True)),
        unused_keys=unused,
        notes=tuple(notes),
        origin=origin(manifest),
    )


def origin(manifest: Manifest) -> dict[str, Any]:
    """What identifies a data directory's content, its size in bytes and its digest, and what is known of its source."""
    found = {"format": "data directory", "size": manifest.size, "sha256": manifest.sha256}
    return found | ({"about": manifest.provenance["about"]} if "about" in manifest.provenance else {})


def _refuse_other_kinds(directory: pathlib.Path, arrays: Mapping[str, ArrayFile]) -> None:
    expected = {"observations": 2, "actions": 2, "rewards": 1, "terminations": 1}
    for name, axes in expected.items():
        if len(arrays[name].shape) != axes:
            raise ValueError(f"{name} of {directory} have shape {list(arrays[name].shape)}; give {axes} axes.")
    if arrays["actions"].dtype.kind == "b" or arrays["terminations"].dtype.kind != "b":
        raise ValueError(
            f"{directory} has actions of {arrays['actions'].dtype} and terminations of {arrays['terminations'].dtype}; "
            "give real numbers and booleans."
        )
