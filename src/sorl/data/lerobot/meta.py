"""The description of a LeRobot data set: `meta/info.json`, and the length of each episode."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sorl.system.files import read_json


VERSIONS = ("v2.0", "v2.1", "v3.0")
REMEDY = "fetch the data set again"
INFO = "meta/info.json"
"""The file by which a data set is recognised."""
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""The features that every data set has."""
NUMBERS = re.compile(r"(float|u?int)\d+|bool")


class Info(NamedTuple):
    """What `meta/info.json` says."""

    version: str
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    """`dtype`, `shape` and `names` of each feature."""
    episodes: int
    frames: int
    robot: str | None


def read_info(directory: Path) -> Info:
    """Reads `meta/info.json`; raises a `ValueError` if it is damaged or of an unknown version."""
    path = directory / INFO
    content = read_json(path, REMEDY)
    version = content.get("codebase_version")
    if version not in VERSIONS:
        raise ValueError(f"{path} is of version {version}; give a data set of LeRobot {', '.join(VERSIONS)}.")
    features, fps = content.get("features"), content.get("fps")
    episodes, frames = content.get("total_episodes"), content.get("total_frames")
    if (
        not isinstance(features, dict)
        or not all(isinstance(one, dict) and "dtype" in one for one in features.values())
        or not isinstance(fps, int | float)
        or not isinstance(episodes, int)
        or not isinstance(frames, int)
    ):
        raise ValueError(f"{path} lacks features, fps, total_episodes or total_frames; {REMEDY}.")
    if isinstance(fps, bool) or not 0 < fps < math.inf:
        raise ValueError(f"{path} says fps {fps}; give a number of frames per second above 0.")
    for name, one in features.items():
        shape = one.get("shape") or [1]
        if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(f"{path} says shape {shape!r} of {name}; {REMEDY}.")
    return Info(version, float(fps), features, episodes, frames, content.get("robot_type"))


def is_vector(feature: Mapping[str, Any]) -> bool:
    """Whether a feature is a vector of numbers, and so no image, video or text."""
    return bool(NUMBERS.fullmatch(str(feature["dtype"]))) and len(feature.get("shape") or (1,)) == 1


def names_of(feature: Mapping[str, Any]) -> list[str] | None:
    """The names of a feature's dimensions; None if it does not name them all."""
    names = feature.get("names")
    if isinstance(names, dict):  # such as {"motors": [..]}
        lists = [names[key] for key in names if isinstance(names[key], list)]
        names = [name for one in lists for name in one] if lists else list(names)
    return [str(name) for name in names] if isinstance(names, list) else None


def data_files(directory: Path) -> list[Path]:
    """The parquet files of the steps, in the order of their numbers; raises a `FileNotFoundError` if there is none."""
    found = list((directory / "data").glob("*/*.parquet"))
    if not found:
        raise FileNotFoundError(f"{directory / 'data'} holds no parquet file; {REMEDY}.")
    return sorted(found, key=_numbers)


def meta_files(directory: Path) -> list[Path]:
    """The files that say how long each episode is: version 3 in parquet, version 2 in `episodes.jsonl`.

    Raises a `FileNotFoundError` if there is none.
    """
    lines = directory / "meta" / "episodes.jsonl"
    found = sorted((directory / "meta" / "episodes").glob("*/*.parquet"), key=_numbers) or ([lines] * lines.exists())
    if not found:
        raise FileNotFoundError(f"{directory / 'meta'} has neither episodes/*/*.parquet nor episodes.jsonl; {REMEDY}.")
    return found


def episode_lengths(files: Sequence[Path]) -> dict[int, int]:
    """The number of steps of each episode by its index.

    Raises a `ValueError` for damaged files, and for an episode that is listed twice.
    """
    lengths: dict[int, int] = {}
    for path in files:
        for number, length in _listed(path):
            if number in lengths:
                raise ValueError(f"{path} lists episode {number} twice; {REMEDY}.")
            lengths[number] = length
    return lengths


def _listed(path: Path) -> list[tuple[int, int]]:
    """The index and the number of steps of each episode in one file."""
    try:
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            return [(int(row["episode_index"]), int(row["length"])) for row in rows]
        return _listed_in_parquet(path)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not say how long each episode is ({error}); {REMEDY}.") from error


def _listed_in_parquet(path: Path) -> list[tuple[int, int]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=["episode_index", "length"]).to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return [(int(number), int(length)) for number, length in zip(table["episode_index"], table["length"], strict=True)]


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", f"{path.parent.name}/{path.name}")]
