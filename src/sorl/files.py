"""Files that are either whole or not there: written under a temporary name, put on the disk, then renamed."""

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
