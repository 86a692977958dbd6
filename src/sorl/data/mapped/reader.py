"""Opens data directories without reading them, and verifies the checksums of their blocks."""

import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int, Shaped

from sorl.data.mapped.manifest import HEADER_BYTES, REMEDY, ArrayFile, Block, Manifest, read_manifest
from sorl.data.paging import map_file
from sorl.system.files import named_errors


READ_BYTES = 1 << 22


def open_arrays(directory: pathlib.Path) -> tuple[Manifest, dict[str, np.ndarray]]:
    """Opens a data directory: its description, and its arrays as read-only memory maps.

    The sizes of all files are checked at once, their contents only by `verify` and `read_whole`.

    Raises a `FileNotFoundError` if an array's file is missing, and a `ValueError`, one sentence that names the file and
    the block, if it has another size or form than `data.json` says.
    """
    manifest = read_manifest(directory)
    for name, array in manifest.arrays.items():
        _refuse_other_size(directory / f"{name}.npy", array)
    arrays = {name: _mapped(directory / f"{name}.npy", array) for name, array in manifest.arrays.items()}
    lengths = arrays["episode_lengths"]
    if lengths.ndim != 1 or lengths.dtype.kind != "i" or lengths.min() < 1 or lengths.sum() != manifest.rows:
        raise ValueError(
            f"{directory / 'episode_lengths.npy'} does not divide the {manifest.rows} steps into episodes; {REMEDY}."
        )
    return manifest, arrays


def episode_starts(lengths: Int[np.ndarray, " episodes"]) -> Int[np.ndarray, " episodes_and_one"]:
    """The first row of each episode, and at the end the number of rows."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def verify(directory: pathlib.Path | str, names: Iterable[str] | None = None) -> None:
    """Reads arrays of a data directory (None: all) and compares every block with its checksum.

    Raises a `ValueError`, one sentence that names the file and the block, at the first difference.
    """
    directory = pathlib.Path(directory)
    manifest = read_manifest(directory)
    for name in manifest.arrays if names is None else names:
        path = directory / f"{name}.npy"
        _refuse_other_size(path, manifest.arrays[name])
        for _ in verified_pieces(path, manifest.arrays[name]):
            pass


def read_whole(directory: pathlib.Path, name: str, array: ArrayFile) -> Shaped[np.ndarray, "rows ..."]:
    """Reads an array into memory, and compares every block with its checksum."""
    values = np.empty(array.shape, array.dtype)
    memory, filled = values.reshape(-1).view(np.uint8), 0
    for piece in verified_pieces(directory / f"{name}.npy", array):
        memory[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    return values


def verified_pieces(path: pathlib.Path, array: ArrayFile) -> Iterator[memoryview]:
    """The bytes of an array in pieces, each valid until the next; the last piece of a block comes after its check."""
    piece = bytearray(READ_BYTES)
    with named_errors(path, "read", "give files that you may read"), path.open("rb", buffering=0) as file:
        file.seek(HEADER_BYTES)
        for number, block in enumerate(array.blocks):
            digest, left = hashlib.sha256(), block.size
            while left:
                count = file.readinto(memoryview(piece)[: min(left, READ_BYTES)])
                if not count:
                    raise _damaged(path, array, number, "is missing")
                found = memoryview(piece)[:count]
                digest.update(found)
                left -= count
                if not left and digest.hexdigest() != block.sha256:
                    raise _damaged(path, array, number, "is damaged (its SHA-256 is not the recorded one)")
                yield found


def _mapped(path: pathlib.Path, array: ArrayFile) -> np.ndarray:
    with named_errors(path, "opened", "give files that you may read"):
        return map_file(path, array.dtype, array.shape, offset=HEADER_BYTES)


def _refuse_other_size(path: pathlib.Path, array: ArrayFile) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}, which data.json lists; {REMEDY}.")
    with named_errors(path, "opened", "give files that you may read"), path.open("rb") as file:
        header, size = file.read(HEADER_BYTES), path.stat().st_size
    if size < HEADER_BYTES + array.size:
        number = _block_at(array.blocks, size - HEADER_BYTES)
        raise _damaged(path, array, number, f"is missing or cut (the file has {size} bytes)")
    if size != HEADER_BYTES + array.size or header != array.header():
        raise ValueError(
            f"{path} has {size} bytes and its header does not say {array.dtype} of shape {list(array.shape)} in "
            f"{HEADER_BYTES + array.size} bytes, as data.json does; {REMEDY}."
        )


def _block_at(blocks: Iterable[Block], place: int) -> int:
    """The number of the block that holds a byte; the first one for a place before the data."""
    ends = itertools.accumulate(block.size for block in blocks)
    return next(number for number, end in enumerate(ends) if place < end)


def _damaged(path: pathlib.Path, array: ArrayFile, number: int, how: str) -> ValueError:
    first = sum(block.size for block in array.blocks[:number])
    row = array.size // array.shape[0]
    last = (first + array.blocks[number].size - 1) // row
    return ValueError(f"Block {number} of {path} (rows {first // row} to {last}) {how}; {REMEDY}.")
