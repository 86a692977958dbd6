"""Npz files that are each damaged in one way, and unusual ones that are valid."""

import io
import struct
import zipfile
from typing import Any

import numpy as np


ROWS = {
    "observations": np.arange(12.0).reshape(6, 2),
    "actions": np.linspace(-1, 1, 6)[:, None],
    "rewards": np.arange(6.0),
    "terminals": np.array([0, 0, 1, 0, 0, 1]),
    "timeouts": np.zeros(6, np.int64),
}


def npy(array: np.ndarray) -> bytes:
    """The bytes of an array as numpy writes it."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def made_npy(header: str | bytes, payload: bytes = bytes(96), version: tuple[int, int] = (1, 0)) -> bytes:
    """An array with any header."""
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + payload


def archive(method: int = zipfile.ZIP_DEFLATED, extra: dict[str, bytes] | None = None, **changes: Any) -> bytes:
    """The log of `ROWS` with other arrays, or other bytes, in the place of some; None leaves one out."""
    members = {f"{key}.npy": value for key, value in {**ROWS, **changes}.items() if value is not None}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, value in {**members, **(extra or {})}.items():
            file.writestr(name, value if isinstance(value, bytes) else npy(value))
    return buffer.getvalue()


def _patched(content: bytes, local: int, central: int, new: bytes) -> bytes:
    """Overwrites a field of the first member, at these offsets in its local header and in the central directory."""
    data, directory = bytearray(content), content.index(b"PK\1\2")
    data[local : local + len(new)] = new
    data[directory + central : directory + central + len(new)] = new
    return bytes(data)


def _flipped(content: bytes, start: int, stop: int) -> bytes:
    return content[:start] + bytes(255 - byte for byte in content[start:stop]) + content[stop:]


def _twice() -> bytes:
    return archive(extra={"observationz.npy": npy(ROWS["observations"])}).replace(b"observationz", b"observations")


GOOD = archive()
STORED = archive(zipfile.ZIP_STORED)
HEADER = "{'descr': %r, 'fortran_order': False, 'shape': %s, }\n"
OBSERVATIONS = len("observations.npy") + 30
"""Where the first member's bytes begin."""


class _Bomb:
    def __reduce__(self):
        return (open, ("executed", "w"))


def _observations(header: str | bytes, **settings: Any) -> bytes:
    return archive(observations=made_npy(header, **settings))


def _lie(rows: int) -> bytes:
    """A few bytes whose header says that they are many rows."""
    header = HEADER % ("<f8", f"({rows}, 2)")
    return _patched(_observations(header), 22, 24, struct.pack("<I", 10 + len(header) + 16 * rows))


BROKEN: dict[str, bytes] = {
    "flipped bytes in a deflated stream": _flipped(GOOD, OBSERVATIONS + 20, OBSERVATIONS + 60),
    "flipped bytes in a stored array": _flipped(STORED, OBSERVATIONS + 150, OBSERVATIONS + 152),
    "truncated to three bytes": GOOD[:3],
    "truncated after a quarter": GOOD[: len(GOOD) // 4],
    "truncated after a half": GOOD[: len(GOOD) // 2],
    "truncated in the directory": GOOD[:-40],
    "truncated by one byte": GOOD[:-1],
    "bytes missing in the middle": GOOD[:200] + GOOD[260:],
    "encrypted": _patched(GOOD, 6, 8, b"\1\0"),
    "unknown compression": _patched(GOOD, 8, 10, b"\x63\0"),
    "another method than it was written with": _patched(GOOD, 8, 10, b"\x0c\0"),
    "lzma without lzma's header": _patched(GOOD, 8, 10, b"\x0e\0"),
    "a zip version of the future": _patched(GOOD, 4, 6, b"\xff\0"),
    "a size that lies": _patched(GOOD, 22, 24, b"\xff\xff\xff\x7f"),
    "a header and a size that lie": _lie(2**27),
    "no local header": b"xx" + GOOD[2:],
    "a damaged extra field": GOOD[: GOOD.index(b"PK\1\2") + 30] + b"\xff" + GOOD[GOOD.index(b"PK\1\2") + 31 :],
    "a name in no encoding": _patched(_patched(GOOD, 30, 46, b"\xff\xfe"), 6, 8, b"\0\x08"),
    "two arrays of one name": _twice(),
    "huge shape": _observations(HEADER % ("<f8", "(1000000000000000, 2)")),
    "shape beyond all integers": _observations(HEADER % ("<f8", f"({10**30}, 2)")),
    "too many axes": _observations(HEADER % ("<f8", str((1,) * 70 + (12,)))),
    "negative shape": _observations(HEADER % ("<f8", "(-6, -2)")),
    "shape that is no tuple": _observations(HEADER % ("<f8", "12")),
    "shape of fractions": _observations(HEADER % ("<f8", "(6.0, 2.0)")),
    "less than the header tells": _observations(HEADER % ("<f8", "(6, 2)"), payload=bytes(90)),
    "more than the header tells": _observations(HEADER % ("<f8", "(6, 2)"), payload=bytes(100)),
    "no magic": archive(observations=b"not an array at all"),
    "nothing in an array": archive(observations=b""),
    "npy of version 9": _observations(HEADER % ("<f8", "(6, 2)"), version=(9, 0)),
    "npy of version 3": _observations(HEADER % ("<f8", "(6, 2)"), version=(3, 0)),
    "header cut off": archive(observations=npy(ROWS["observations"])[:40]),
    "header that is no dictionary": _observations("[1, 2]\n"),
    "header that is no Python": _observations("{'descr': <f8\n"),
    "header that is no literal": _observations("[<f8]\n"),
    "header of bytes": _observations(bytes(range(128, 256))),
    "header that is nested": _observations("(" * 5000 + "\n"),
    "header without a shape": _observations("{'descr': '<f8', 'fortran_order': False}\n"),
    "header of a program": _observations("{'descr': open('executed', 'w'), 'fortran_order': False, 'shape': (6, 2)}\n"),
    "header that warns": _observations("{'descr': '\\d', 'fortran_order': False, 'shape': (6, 2)}\n"),
    "unknown dtype": _observations(HEADER % ("<z9", "(6, 2)")),
    "objects": archive(observations=np.array([_Bomb()] * 12, object).reshape(6, 2)),
    "a structure": archive(observations=np.zeros(6, [("x", "<f8"), ("y", "<f8")])),
    "a structure of vectors": _observations("{'descr': ('<f8', (2,)), 'fortran_order': False, 'shape': (6,)}\n"),
    "strings": archive(observations=np.full((6, 2), "far")),
    "bytes": archive(observations=np.full((6, 2), b"far")),
    "complex numbers": archive(observations=ROWS["observations"] * 1j),
    "dates": archive(observations=ROWS["observations"].astype("datetime64[s]")),
    "durations": archive(observations=ROWS["observations"].astype("timedelta64[s]")),
    "an empty archive": b"PK\5\6" + bytes(18),
    "text": b"observations, actions\n1, 2\n",
    "a page of an error": b"<!DOCTYPE html><html>not found</html>",
    "an empty file": b"",
    "zeros": bytes(4096),
    "another archive": b"\x1f\x8b\x08" + bytes(100),
    "an array outside an archive": npy(ROWS["observations"]),
}
"""What neither an own log nor a download may be."""

UNFIT: dict[str, bytes] = {
    "an array without axes": archive(observations=np.array(1.0)),
    "no rows": archive(**{key: array[:0] for key, array in ROWS.items()}),
    "a directory instead of an array": archive(observations=None, extra={"observations.npy/": b""}),
    "an array that is not named so": archive(observations=None, extra={"observations": npy(ROWS["observations"])}),
    "an absolute name": archive(observations=None, extra={"/observations.npy": npy(ROWS["observations"])}),
    "a name that leads out": archive(observations=None, extra={"../observations.npy": npy(ROWS["observations"])}),
    "a name with a new line": archive(observations=None, extra={"obser\nvations.npy": npy(ROWS["observations"])}),
}
"""Whole files that are no log."""

ODD: dict[str, bytes] = {
    "big-endian": archive(**{key: array.astype(array.dtype.newbyteorder(">")) for key, array in ROWS.items()}),
    "Fortran's order": archive(observations=np.asfortranarray(ROWS["observations"])),
    "half precision": archive(observations=ROWS["observations"].astype(np.float16)),
    "long double": archive(observations=ROWS["observations"].astype(np.longdouble)),
    "small integers": archive(observations=ROWS["observations"].astype(np.int8)),
    "large unsigned integers": archive(terminals=ROWS["terminals"].astype(np.uint64)),
    "booleans": archive(terminals=ROWS["terminals"].astype(bool)),
    "stored": STORED,
    "bzip2": archive(zipfile.ZIP_BZIP2),
    "lzma": archive(zipfile.ZIP_LZMA),
    "bytes before the archive": b"#!/bin/sh\n" + GOOD,
    "npy of version 2": archive(
        observations=npy(ROWS["observations"]).replace(b"NUMPY\1\0v\0", b"NUMPY\2\0v\0\0\0", 1)
    ),
}
"""Unusual files that hold the log of `ROWS`."""
