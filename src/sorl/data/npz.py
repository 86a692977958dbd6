"""Reads npz files that may be damaged or malicious: each fault is a `ValueError` that names the file and array."""

import math
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped


CHUNK_BYTES = 1 << 20
ENCRYPTED = 1
"""The bit of a member's flags that marks it as encrypted."""
MOST_AXES = 32
LONGEST_REASON = 200
"""The most characters of another library's message that an error quotes."""


class DamagedFileError(ValueError):
    """An npz file, or an array in it, that cannot be read."""

    def __init__(self, where: str, reason: str, remedy: str):
        super().__init__(f"{where} cannot be read ({reason}); {remedy}.")
        self.reason = reason
        """The reason, without the file's name and the remedy."""


class Npz:
    """An npz file opened by `opened`; arrays are read on request."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path = path
        self._archive = archive
        self._members = _by_key(archive)

    @property
    def keys(self) -> list[str]:
        """Names of the arrays; members that are not `.npy` files are ignored."""
        return list(self._members)

    def read(self, key: str) -> Shaped[np.ndarray, "..."]:
        """Reads one array of real numbers or booleans, in this machine's byte order, without unpickling anything.

        Raises a `DamagedFileError` for any other array, and for one that does not match its checksum.
        """
        with _one_sentence(f"{key} of {self._path}", "store plain, undamaged arrays of numbers"):
            with self._open(key) as member:
                shape, fortran_order, dtype = _header(member, self._members[key].file_size)
                # The system assigns this memory only as it is filled, so that a false size in the file costs none.
                values = np.empty(math.prod(shape), dtype)
                filled, memory = 0, values.view(np.uint8).data
                for chunk in _chunks(member, len(memory)):
                    memory[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
            array = values.reshape(shape[::-1]).T if fortran_order else values.reshape(shape)
            return array.astype(dtype.newbyteorder("="), copy=False)

    def check(self, key: str) -> None:
        """Raises the errors of `read`, without keeping the array in memory."""
        with _one_sentence(f"{key} of {self._path}", "write it again"), self._open(key) as member:
            shape, _, dtype = _header(member, self._members[key].file_size)
            for _ in _chunks(member, math.prod(shape) * dtype.itemsize):
                pass

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of an array, without reading it; raises as `read` does."""
        with (
            _one_sentence(f"{key} of {self._path}", "store plain, undamaged arrays of numbers"),
            self._open(key) as member,
        ):
            return _header(member, self._members[key].file_size)[0]

    @contextmanager
    def rows(self, key: str) -> Iterator["RowReader"]:
        """Opens an array to be read by rows in constant memory; an array in Fortran order is read as a whole."""
        where = f"{key} of {self._path}"
        with ExitStack() as stack:
            with _one_sentence(where, "store plain, undamaged arrays of numbers"):
                member = stack.enter_context(self._open(key))
                shape, fortran_order, dtype = _header(member, self._members[key].file_size)
                if not shape:
                    raise ValueError("it is a single number")
            whole = self.read(key) if fortran_order and len(shape) > 1 else None
            yield RowReader(where, member, shape, dtype, whole)

    def _open(self, key: str) -> zipfile.ZipExtFile:
        if self._members[key].flag_bits & ENCRYPTED:
            raise ValueError("it is encrypted")
        member = self._archive.open(self._members[key])
        assert isinstance(member, zipfile.ZipExtFile)
        return member


class RowReader:
    """Reads the rows of an array one after another."""

    def __init__(
        self,
        where: str,
        member: zipfile.ZipExtFile,
        shape: tuple[int, ...],
        dtype: np.dtype,
        whole: Shaped[np.ndarray, "..."] | None,
    ):
        self._where, self._member, self._row, self._dtype, self._whole = where, member, shape[1:], dtype, whole
        self._done = 0
        self.count = shape[0]
        """Number of rows."""
        self.row_bytes = math.prod(shape[1:]) * dtype.itemsize

    def read(self, rows: int) -> Shaped[np.ndarray, "rows ..."]:
        """The next `rows` rows, which must exist; reading the array's last row verifies its checksum."""
        self._done += rows
        if self._whole is not None:
            return self._whole[self._done - rows : self._done]
        with _one_sentence(self._where, "write it again"):
            content = self._member.read(rows * self.row_bytes)
            if self._done == self.count:
                content += self._member.read()  # nothing, but it compares the checksum
            if len(content) != rows * self.row_bytes:
                raise ValueError(f"it ends in row {self._done - rows + len(content) // max(1, self.row_bytes)}")
        return np.frombuffer(content, self._dtype).reshape(rows, *self._row).astype(self._dtype.newbyteorder("="))


@contextmanager
def opened(path: Path) -> Iterator[Npz]:
    """Opens an npz file.

    Raises a `FileNotFoundError` if there is no file, and a `ValueError` if it is not a regular file, cannot be read, is
    not an npz file, or has two arrays with the same name.
    """
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # opening a pipe would block
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}; give an npz file.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give a file that you may read.") from error
    if not regular:
        raise ValueError(f"{path} is a directory or a device; give an npz file.")
    with _one_sentence(str(path), "give an undamaged npz file that you may read"):
        file = path.open("rb")
    with file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is not an npz file, or only part of one; write it with numpy.savez.")
        with _one_sentence(str(path), "write it again with numpy.savez"):
            npz = Npz(path, zipfile.ZipFile(file))
        yield npz


def damage(path: Path) -> str | None:
    """Describes the damage of an npz file (array and reason); None if every array can be read."""
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
        return "it is not an npz file, or only part of one"
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
    """Reads an array's header: shape, whether in Fortran order, and dtype; checks them against the member's size."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its npy format has version {version[0]}.{version[1]}, known are 1.0 and 2.0")
    try:
        shape, fortran_order, dtype = readers[version](member)
    except Exception as error:  # numpy parses it as Python, which can fail in many ways
        raise ValueError(f"its header is damaged: {_reason(error)}") from error
    if dtype.kind not in "fiub":
        raise ValueError(f"it has dtype {dtype}, not real numbers or booleans")
    if len(shape) > MOST_AXES:
        raise ValueError(f"it has {len(shape)} axes")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != member_bytes - member.tell():
        raise ValueError(f"its header says shape {list(shape)} of {dtype}, but its size is {member_bytes} bytes")
    return shape, fortran_order, dtype


def _chunks(member: zipfile.ZipExtFile, expected: int) -> Iterator[bytes]:
    """The rest of a member, which must be `expected` bytes; the last read verifies the checksum."""
    found = 0
    while chunk := member.read(CHUNK_BYTES):
        found += len(chunk)
        yield chunk
    if found != expected:
        raise ValueError(f"it ends after {found} of {expected} bytes")


@contextmanager
def _one_sentence(where: str, remedy: str) -> Iterator[None]:
    """Turns any exception of zipfile, zlib and numpy about a damaged file into a `DamagedFileError`."""
    try:
        yield
    except Exception as error:  # invalid bytes can fail in many ways, a `MemoryError` among them
        raise DamagedFileError(where, _reason(error), remedy) from error


def _reason(error: Exception) -> str:
    """Another library's message on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return (text.splitlines() or [""])[0].strip(" .")[:LONGEST_REASON] or type(error).__name__
