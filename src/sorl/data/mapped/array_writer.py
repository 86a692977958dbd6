"""Writes one array of a data directory, piece by piece, with a checksum of each block."""

import hashlib
import os
import pathlib

import numpy as np
from jaxtyping import Shaped

from sorl.data.mapped.manifest import BLOCK_BYTES, HEADER_BYTES, ArrayFile, Block
from sorl.system.files import named_errors


COPY_BYTES = 1 << 24


class ArrayWriter:
    """An npy file that grows by rows; its header is completed by `finish`."""

    def __init__(self, path: pathlib.Path, dtype: np.dtype, row: tuple[int, ...]):
        self.dtype, self.row = dtype, row
        self._path, self._rows = path, 0
        self._blocks: list[Block] = []
        self._open_block, self._open_bytes = hashlib.sha256(), 0
        with named_errors(path):
            self._file = path.open("xb")
            self._file.write(bytes(HEADER_BYTES))

    def append(self, values: Shaped[np.ndarray, "rows ..."]) -> None:
        """Adds rows of the array's dtype and shape."""
        content = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        while len(content):
            piece = content[: BLOCK_BYTES - self._open_bytes]
            self._open_block.update(piece)
            self._open_bytes += len(piece)
            with named_errors(self._path):
                self._file.write(piece)
            if self._open_bytes == BLOCK_BYTES:
                self._close_block()
            content = content[len(piece) :]
        self._rows += len(values)

    def append_file(self, path: pathlib.Path, array: ArrayFile) -> None:
        """Adds all rows of another directory's array, with its checksums; the system copies, not this process."""
        self._close_block()
        with named_errors(self._path), path.open("rb") as source:
            self._file.flush()
            _copy(source.fileno(), self._file.fileno(), HEADER_BYTES, array.size)
            self._file.seek(0, os.SEEK_END)
        self._blocks += array.blocks
        self._rows += array.shape[0]

    def finish(self) -> ArrayFile:
        """Completes the file; **returns** its description."""
        self._close_block()
        array = ArrayFile(self.dtype, (self._rows, *self.row), tuple(self._blocks))
        with named_errors(self._path):
            self._file.seek(0)
            self._file.write(array.header())
            self._file.flush()
            os.fsync(self._file.fileno())
        self.close()
        return array

    def close(self) -> None:
        """Closes the file; what was written stays, without a valid header."""
        self._file.close()

    def _close_block(self) -> None:
        if self._open_bytes:
            self._blocks.append(Block(self._open_bytes, self._open_block.hexdigest()))
            self._open_block, self._open_bytes = hashlib.sha256(), 0


def _copy(source: int, target: int, offset: int, size: int) -> None:
    """Appends `size` bytes of a file from `offset` on to another, inside the system where it can."""
    copied, by_system = 0, hasattr(os, "copy_file_range")
    os.lseek(target, 0, os.SEEK_END)
    while copied < size:
        wanted = min(size - copied, 1 << 30)
        if by_system:
            try:
                moved = os.copy_file_range(source, target, wanted, offset_src=offset + copied)
            except OSError:  # the file systems differ, or have no such call
                by_system = False
                continue
        else:
            moved = os.write(target, os.pread(source, min(wanted, COPY_BYTES), offset + copied))
        if not moved:
            raise OSError(f"A data file ended {size - copied} bytes early while it was copied; write it again.")
        copied += moved


def written_at_once(path: pathlib.Path, values: Shaped[np.ndarray, "rows ..."]) -> ArrayFile:
    """Writes a whole array; **returns** its description."""
    writer = ArrayWriter(path, values.dtype, tuple(values.shape[1:]))
    try:
        writer.append(values)
        return writer.finish()
    finally:
        writer.close()
