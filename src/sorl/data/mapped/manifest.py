"""The description of a data directory, `data.json`: its arrays, the checksums of their blocks, and their origin."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sorl.system.files import read_json, write_json


FORM, VERSION = "sorl-data", 1
NAME = "data.json"
BLOCK_BYTES = 1 << 26
"""The most bytes that one checksum covers."""
HEADER_BYTES = 128
"""Size of the header of each npy file, so that the data begin at a multiple of 64 bytes."""
EPISODE_ARRAYS = ("episode_lengths", "final_observations", "final_known")
"""The arrays with one row an episode; every other array has one row a step."""
STEPS_NEEDED = ("observations", "actions")
ARRAY_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
FIELDS = {"format", "version", "rows", "episodes", "action_range", "arrays", "sha256", "provenance"}
REMEDY = "copy the directory again, or make it again"


@dataclasses.dataclass(frozen=True)
class Block:
    """A stretch of an array's bytes, and its checksum."""

    size: int
    """Number of bytes."""
    sha256: str


@dataclasses.dataclass(frozen=True)
class ArrayFile:
    """An array of a data directory, in the file `{name}.npy`."""

    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    """The blocks, which together are all bytes of the array, in order."""

    @property
    def size(self) -> int:
        """Number of bytes of the array, without the header."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def header(self) -> bytes:
        """The first `HEADER_BYTES` of the file, in version 1.0 of the npy format.

        Raises a `ValueError` if the shape has too many axes to fit.
        """
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        text = repr(described).encode()
        space = HEADER_BYTES - 11 - len(text)
        if space < 0:  # the header would overwrite the data
            raise ValueError(f"An array has {len(self.shape)} axes, {list(self.shape)}; give rows with fewer axes.")
        return np.lib.format.magic(1, 0) + (HEADER_BYTES - 10).to_bytes(2, "little") + text + b" " * space + b"\n"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of `data.json`."""

    arrays: Mapping[str, ArrayFile]
    """The arrays by name."""
    action_range: tuple[tuple[float, ...], tuple[float, ...]] | None
    """The actions that map to -1 and 1, if they are known."""
    provenance: Mapping[str, Any]
    """The origin of the data, JSON-able; it does not count towards `sha256`."""

    @property
    def rows(self) -> int:
        """Number of steps."""
        return self.arrays["observations"].shape[0]

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return self.arrays["episode_lengths"].shape[0]

    @property
    def size(self) -> int:
        """Number of bytes of all arrays."""
        return sum(array.size for array in self.arrays.values())

    @property
    def sha256(self) -> str:
        """The digest of all arrays, through the checksums of their blocks, and of the action range."""
        content = [_arrays_to_json(self.arrays), self.action_range]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, directory: pathlib.Path) -> None:
        """Writes `data.json`."""
        content = {
            "format": FORM,
            "version": VERSION,
            "rows": self.rows,
            "episodes": self.episodes,
            "action_range": self.action_range,
            "arrays": _arrays_to_json(self.arrays),
            "sha256": self.sha256,
            "provenance": dict(self.provenance),
        }
        write_json(directory / NAME, content)


def _arrays_to_json(arrays: Mapping[str, ArrayFile]) -> dict[str, Any]:
    return {
        name: {
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "blocks": [[block.size, block.sha256] for block in array.blocks],
        }
        for name, array in arrays.items()
    }


def is_data_directory(path: pathlib.Path) -> bool:
    """Whether a path is a directory with a `data.json`."""
    return (path / NAME).is_file()


def refuse_missing(path: pathlib.Path) -> None:
    """Raises a `FileNotFoundError`, one sentence, if there is no file or directory of own logs."""
    if not path.exists():
        named = "" if path.suffix else ", or fetch a Minari data set with `minari download ID` first"
        raise FileNotFoundError(f"There is no file {path}; give the npz file of your logs{named}.")


def refuse_other_directory(path: pathlib.Path) -> None:
    """Raises a `ValueError`, one sentence, for a directory in none of the formats that are directories."""
    if path.is_dir() and not is_data_directory(path):
        raise ValueError(
            f"{path} is a directory without {NAME}, and without LeRobot's meta/info.json or Minari's "
            "data/metadata.json; give the directory that has one, or a single file."
        )


def read_manifest(directory: pathlib.Path) -> Manifest:
    """Reads `data.json`.

    Raises a `FileNotFoundError` if there is none, and a `ValueError`, one sentence, if it is damaged, of another format
    or of a newer version.
    """
    path = directory / NAME
    content = read_json(path, REMEDY)
    if content.get("format") != FORM:
        raise ValueError(f"{path} has format {content.get('format')!r} instead of {FORM!r}; give a data directory.")
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {content.get('version')!r} of its format, and this is sorl for version {VERSION}; "
            "read it with the release that wrote it."
        )
    if unknown := sorted(content.keys() - FIELDS):
        raise ValueError(f"{path} has the unknown field {unknown[0]!r}; read it with the release that wrote it.")
    try:
        return _manifest(content)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split()).rstrip('.')}); {REMEDY}.") from error


def _manifest(content: Mapping[str, Any]) -> Manifest:
    """The manifest of a file's content; raises any of the errors that `read_manifest` rewords."""
    arrays = {name: _array(name, found) for name, found in content["arrays"].items()}
    for name in (*STEPS_NEEDED, "episode_lengths"):
        if name not in arrays:
            raise ValueError(f"it lists no array {name}")
    known = None
    if content["action_range"] is not None:
        low, high = (tuple(float(number) for number in bound) for bound in content["action_range"])
        if (len(low), len(high)) != (arrays["actions"].shape[1],) * 2:
            raise ValueError("its action range does not fit the actions")
        known = low, high
    manifest = Manifest(arrays, known, dict(content["provenance"]))
    counts = {"rows": manifest.rows, "episodes": manifest.episodes}
    for name, array in arrays.items():
        unit = "episodes" if name in EPISODE_ARRAYS else "rows"
        if array.shape[0] != counts[unit] or content[unit] != counts[unit]:
            raise ValueError(f"{name} has {array.shape[0]} rows")
    if content.get("sha256", manifest.sha256) != manifest.sha256:
        raise ValueError("its arrays or action range are not those of its SHA-256")
    return manifest


def _array(name: str, found: Mapping[str, Any]) -> ArrayFile:
    if not ARRAY_NAME.fullmatch(name):
        raise ValueError(f"an array is named {name!r}")
    blocks = tuple(Block(size, digest) for size, digest in found["blocks"])
    array = ArrayFile(np.dtype(found["dtype"]), tuple(found["shape"]), blocks)
    axes = 2 if name in ("observations", "actions", "final_observations") else None
    if array.dtype.kind not in "fiub" or not array.shape or (axes and len(array.shape) != axes):
        raise ValueError(f"{name} is of {array.dtype} with shape {list(array.shape)}")
    if any(type(size) is not int or size < 1 for size in (*array.shape, *(block.size for block in blocks))):
        raise ValueError(f"a size of {name} is no whole number above 0")
    if sum(block.size for block in blocks) != array.size:
        raise ValueError(f"the blocks of {name} are not its {array.size} bytes")
    return array
