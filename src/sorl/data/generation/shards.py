"""Shards: files of one finished episode each, kept until the generated data set is complete."""

import pathlib
from collections.abc import Sequence

import numpy as np

from sorl.data import npz
from sorl.data.generation.episodes import DTYPES, Episode
from sorl.system.files import whole_file


OPTIONAL = ("button_states",)


def shard_path(folder: pathlib.Path, episode: tuple[int, int]) -> pathlib.Path:
    """The path of the file of one finished episode, `(split, number)`."""
    return folder / "split-{}-episode-{:06d}.npz".format(*episode)


def write(path: pathlib.Path, rows: Episode) -> None:
    """Writes an episode's file, atomically."""
    with whole_file(path, "wb") as file:
        np.savez(file, allow_pickle=False, **rows)


def read(path: pathlib.Path) -> Episode:
    """Reads an episode's arrays; raises a `ValueError` if the file is damaged."""
    with npz.opened(path) as file:
        return {key: file.read(key) for key in file.keys}


def damage(path: pathlib.Path) -> str | None:
    """Describes the damage of a shard; None if it has none."""
    found = npz.damage(path)
    if found is not None:
        return found
    rows = read(path)
    keys = {key for key in DTYPES if key not in OPTIONAL or key in rows}
    if rows.keys() != keys:
        return f"it holds {', '.join(rows)}"
    if any(array.dtype != DTYPES[key] or not array.ndim for key, array in rows.items()):
        return "its arrays have other dtypes or no rows"
    lengths = {len(array) for array in rows.values()}
    return None if len(lengths) == 1 and 0 not in lengths else "its arrays have different lengths, or none"


def concatenated(paths: Sequence[pathlib.Path]) -> Episode:
    """The rows of all episodes, one after another."""
    episodes = [read(path) for path in paths]
    return {key: np.concatenate([episode[key] for episode in episodes]) for key in DTYPES if key in episodes[0]}
