"""Files that are either whole or not there: written under a temporary name, put on the disk, then renamed."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file to be written, in text (`w`) or bytes (`wb`), that gets its name only if nothing is raised."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    binary = "b" in mode
    try:
        # The same line ends on every system.
        with temporary.open(mode, encoding=None if binary else "utf-8", newline=None if binary else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


def write_sealed(path: Path, form: str, version: int, header: dict[str, Any], payload: bytes) -> None:
    """Writes a header and a payload so that `sorl.exported.read_sealed` notices the change of a single bit.

    Raises a `ValueError` if the header holds a number that is not finite, which JSON has no word for.
    """
    content = json.dumps(header, allow_nan=False).encode() + b"\n" + payload
    with whole_file(path, "wb") as file:
        file.write(f"{form} {version} {hashlib.sha256(content).hexdigest()}\n".encode() + content)


def user_cache(name: str) -> Path:
    """Where sorl keeps what it can make again: a directory in the user's cache (`XDG_CACHE_HOME`, or `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sorl" / name


def make_private(directory: Path, remedy: str) -> None:
    """Makes a directory that only its user can enter; raises a `PermissionError` if it is there and another user's."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to another user; {remedy}.")
