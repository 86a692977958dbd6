"""Reads npz files that may be damaged or hostile: any fault is one `ValueError` that names the file and the array."""

import math
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped


CHUNK_BYTES = 1 << 20
ENCRYPTED = 1
"""Of a member's flags."""
MOST_AXES = 32
LONGEST_REASON = 200
"""Characters of another library's message that a sentence repeats."""


class DamagedFileError(ValueError):
    """An npz file, or an array in it, that cannot be read."""

    def __init__(self, where: str, reason: str, remedy: str):
        super().__init__(f"{where} cannot be read ({reason}); {remedy}.")
        self.reason = reason
        """What was found, without the file's name and the remedy."""


class Npz:
    """An npz file that `opened` has opened; arrays are read when they are asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path = path
        self._archive = archive
        self._members = _by_key(archive)

    @property
    def keys(self) -> list[str]:
        """Names of the arrays; what is no `.npy` member is left out."""
        return list(self._members)

    def read(self, key: str) -> Shaped[np.ndarray, "..."]:
        """One array, of real numbers or booleans, in this machine's byte order; nothing is unpickled.

        Raises a `DamagedFileError` for anything else and for an array that does not agree with its check sum.
        """
        with _one_sentence(f"{key} of {self._path}", "store plain, undamaged arrays of numbers"):
            with self._open(key) as member:
                shape, fortran_order, dtype = _header(member, self._members[key].file_size)
                # Memory is taken as the bytes arrive, so that a wrong size in the file takes none.
                values = np.empty(math.prod(shape), dtype)
                filled, memory = 0, values.view(np.uint8).data
                for chunk in _chunks(member, len(memory)):
                    memory[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
            array = values.reshape(shape[::-1]).T if fortran_order else values.reshape(shape)
            return array.astype(dtype.newbyteorder("="), copy=False)

    def check(self, key: str) -> None:
        """Raises what `read` raises, without keeping the array in memory."""
        with _one_sentence(f"{key} of {self._path}", "write it again"):
            with self._open(key) as member:
                shape, _, dtype = _header(member, self._members[key].file_size)
                for _ in _chunks(member, math.prod(shape) * dtype.itemsize):
                    pass

    def _open(self, key: str) -> zipfile.ZipExtFile:
        if self._members[key].flag_bits & ENCRYPTED:
            raise ValueError("it is encrypted")
        member = self._archive.open(self._members[key])
        assert isinstance(member, zipfile.ZipExtFile)
        return member


@contextmanager
def opened(path: Path) -> Iterator[Npz]:
    """Opens an npz file.

    Raises a `FileNotFoundError` if there is none, and a `ValueError` for what is no file, no npz, unreadable, or holds
    two arrays of one name.
    """
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # a pipe would block whoever opens it
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give a file that you may read.") from error
    if not regular:
        raise ValueError(f"{path} is a directory or a device; give an npz file.")
    with _one_sentence(str(path), "give an undamaged npz file that you may read"):
        file = path.open("rb")
    with file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is no npz file, or only a part of one; write it with numpy.savez.")
        with _one_sentence(str(path), "write it again with numpy.savez"):
            npz = Npz(path, zipfile.ZipFile(file))
        yield npz


def damage(path: Path) -> str | None:
    """What is wrong with an npz file: a member, and the reason; None if every array can be read."""
    try:
        with opened(path) as npz:
            if not npz.keys:
                return "it holds no array"
            for key in npz.keys:
                try:
                    npz.check(key)
                except DamagedFileError as error:
                    return f"{key}: {error.reason}"
    except DamagedFileError as error:
        return error.reason
    except ValueError:
        return "it is no npz file, or only a part of one"
    return None


def _by_key(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if member.filename.endswith(".npy"):
            key = member.filename.removesuffix(".npy")
            key = key if key.isprintable() else repr(key)
            if key in members:
                raise ValueError(f"two arrays are named {key}")
            members[key] = member
    return members


def _header(member: zipfile.ZipExtFile, member_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads an array's header: shape, whether in Fortran's order, and dtype; refuses sizes that are not the file's."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its npy format has version {version[0]}.{version[1]}, known are 1.0 and 2.0")
    try:
        shape, fortran_order, dtype = readers[version](member)
    except Exception as error:  # numpy parses it as Python
        raise ValueError(f"its header is damaged: {_reason(error)}") from error
    if dtype.kind not in "fiub":
        raise ValueError(f"it has dtype {dtype}, not real numbers or booleans")
    if len(shape) > MOST_AXES:
        raise ValueError(f"it has {len(shape)} axes")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != member_bytes - member.tell():
        raise ValueError(f"its header tells shape {list(shape)} of {dtype}, its size is {member_bytes} bytes")
    return shape, fortran_order, dtype


def _chunks(member: zipfile.ZipExtFile, expected: int) -> Iterator[bytes]:
    """The rest of a member, which must be so many bytes; the last read compares the check sum."""
    found = 0
    while chunk := member.read(CHUNK_BYTES):
        found += len(chunk)
        yield chunk
    if found != expected:
        raise ValueError(f"it ends after {found} of {expected} bytes")


@contextmanager
def _one_sentence(where: str, remedy: str) -> Iterator[None]:
    """Turns whatever zipfile, zlib and numpy raise for a damaged file into one `DamagedFileError`."""
    try:
        yield
    except Exception as error:  # bytes of no file format can fail in many ways, out of memory among them
        raise DamagedFileError(where, _reason(error), remedy) from error


def _reason(error: Exception) -> str:
    """Another library's message on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return (text.splitlines() or [""])[0].strip(" .")[:LONGEST_REASON] or type(error).__name__
