"""One process at a time in a directory."""

import fcntl
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def alone_in(directory: pathlib.Path) -> Iterator[None]:
    """Waits until no other process is in the directory; one that is killed frees its place at once."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".sorl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
