"""Keeps the memory of memory-mapped arrays small while they are read."""

import mmap

import numpy as np
from jaxtyping import Shaped


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
