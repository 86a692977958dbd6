"""Memory-mapped arrays: keeps their memory small while they are read, and notices when their files change."""

import mmap
import os
import pathlib
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Shaped


_opened: WeakKeyDictionary[mmap.mmap, tuple[pathlib.Path, os.stat_result]] = WeakKeyDictionary()
"""The file of each memory map, and its size and times when it was opened."""


def map_file(path: pathlib.Path, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> Shaped[np.ndarray, "..."]:
    """Opens an array in a file as a read-only memory map."""
    before = path.stat()
    array = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    mapped = mapping(array)
    assert mapped is not None  # as it was just made
    _opened[mapped] = path, before
    return array


def refuse_changed(*arrays: Shaped[np.ndarray, "..."]) -> None:
    """Raises a `ValueError`, one sentence, if a file of `map_file` was written since; other arrays are ignored.

    A file that was removed or replaced stays as it was for those that have it open.
    """
    for array in arrays:
        mapped = mapping(array)
        opened = None if mapped is None else _opened.get(mapped)
        if opened is None or not opened[0].exists():
            continue
        path, before = opened
        now = path.stat()
        same = (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        if os.path.samestat(now, before) and not same:
            raise ValueError(
                f"{path} was changed while it was in use; restore it from a copy, and give the command again (a "
                "training continues from its last checkpoint with --resume)."
            )


def mapping(array: Shaped[np.ndarray, "..."]) -> mmap.mmap | None:
    """The memory map that an array is a view of; None for an array in memory."""
    owner = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner if isinstance(owner, mmap.mmap) else None


def release(*arrays: Shaped[np.ndarray, "..."]) -> None:
    """Unmaps the pages of mapped arrays that were read, so that they no longer count as memory of this process.

    The system keeps them in its cache of files as long as it has no better use for the memory. Arrays that are not
    mapped are ignored.
    """
    for array in arrays:
        mapped = mapping(array)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
