"""Joins the episodes of a generated set into its files, npz files or data directories, and finds sets that exist."""

import pathlib
from typing import Any, Literal

import numpy as np

from sorl.data import records
from sorl.data.generation import shards
from sorl.data.generation.recipes import GeneratedSet
from sorl.data.generation.shards import shard_path
from sorl.data.mapped.manifest import is_data_directory
from sorl.data.mapped.npz_parts import map_npz
from sorl.data.mapped.reader import open_arrays, verify
from sorl.data.mapped.writer import MappedWriter
from sorl.system.files import whole_file


SPLITS = ("train", "val")
"""The splits; an episode is identified by its split's index here and its number in the split."""
Form = Literal["npz", "mapped"]
"""OGBench's npz files, or data directories."""


def split_path(directory: pathlib.Path, dataset: str, split: str, form: Form = "npz") -> pathlib.Path:
    """The path of a split (`train` or `val`), with OGBench's file name; that of a data directory has no suffix."""
    name = dataset if split == "train" else f"{dataset}-{split}"
    return directory / (f"{name}.npz" if form == "npz" else name)


def episodes_of(wanted: GeneratedSet) -> list[tuple[int, int]]:
    """All episodes of a set, each `(split, number)`."""
    counts = (wanted.episodes, wanted.validation_episodes)
    return [(split, number) for split, count in enumerate(counts) for number in range(count)]


def is_there(wanted: GeneratedSet, directory: pathlib.Path, settings: dict[str, Any], form: Form) -> bool:
    """Whether both splits exist; raises a `ValueError` if one exists that was generated with other settings."""
    paths = [split_path(directory, wanted.dataset, split, form) for split in SPLITS]
    found = [path for path in paths if path.exists()]
    for path in found:
        record = _verified(path, form)
        if any(record.get(key) != settings[key] for key in ("source", "seed", "train_episodes", "recipe")):
            raise ValueError(
                f"{path} exists already and was not made by the settings asked for ({wanted}); "
                "give another directory, or delete the file."
            )
    return found == paths


def _verified(path: pathlib.Path, form: Form) -> dict[str, Any]:
    """The record of a split, after a comparison with its checksums."""
    if form == "npz":
        return records.verified(path) or {}
    if not is_data_directory(path):
        return {}
    manifest, _ = open_arrays(path)
    verify(path)
    return dict(manifest.provenance)


def assemble(
    wanted: GeneratedSet, directory: pathlib.Path, folder: pathlib.Path, settings: dict[str, Any], form: Form
) -> None:
    """Joins the episodes in `folder` to both splits; writes the training split last, which completes the set."""
    for place, split in reversed(list(enumerate(SPLITS))):
        parts = [shard_path(folder, episode) for episode in episodes_of(wanted) if episode[0] == place]
        details = {**settings, "split": split, "episodes": len(parts)}
        path = split_path(directory, wanted.dataset, split, form)
        if form == "npz":
            _npz(parts, path, folder, details)
        elif not path.exists():  # else a killed process wrote it, and not yet the other split
            _mapped(parts, path, details)


def _npz(parts: list[pathlib.Path], path: pathlib.Path, folder: pathlib.Path, details: dict[str, Any]) -> None:
    rows = shards.concatenated(parts)
    joined = folder / f"{details['split']}.npz"
    with whole_file(joined, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **rows)
    records.publish(joined, path, {**details, "transitions": int(np.sum(~rows["terminals"]))})


def _mapped(parts: list[pathlib.Path], path: pathlib.Path, details: dict[str, Any]) -> None:
    with MappedWriter(path, provenance=details) as writer:
        for part in parts:
            rows = shards.read(part)
            del rows["terminals"]  # the lengths of the episodes say the same
            writer.append(rows)


def map_files(wanted: GeneratedSet, directory: pathlib.Path) -> None:
    """Makes the data directories of a set from its npz files."""
    for split in reversed(SPLITS):
        file = split_path(directory, wanted.dataset, split)
        path = split_path(directory, wanted.dataset, split, "mapped")
        if not path.exists():
            record = {name: value for name, value in (records.verified(file) or {}).items() if name not in _OF_FILES}
            map_npz([file], path, provenance=record)


_OF_FILES = ("size", "sha256", "transitions")
"""Entries of an npz file's record that are not true of a data directory, or that it knows itself."""
