"""Lock files: one process at a time holds one; the system releases it when that process ends, also if killed."""

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sorl.system.files import make_directory, named_errors


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


TRIES = 5
"""How often a busy lock is tried, `PAUSE` seconds apart, because `is_held` holds it for a moment."""
PAUSE = 0.1


@contextmanager
def exclusive(path: Path, busy: str | None = None, remedy: str | None = None) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`; creates the file and its directory if missing.

    **Arguments:** `busy`, the message of the `BlockingIOError` raised if another process holds the lock (None: print a
    line on standard error and wait); `remedy`, what to do if the directory cannot be written.

    Raises an `OSError`, one sentence, if the file cannot be opened or is a link, or if the system has no file locks.
    """
    if fcntl is None:
        raise OSError(f"{path} cannot be locked on this system; run sorl on Linux or macOS.")
    descriptor = _locked(path, busy, remedy)
    try:
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on the file `path`; never waits, and creates nothing.

    Another host's lock is seen only if the file system has locks that hold across hosts.
    """
    if fcntl is None or not path.is_file():
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:  # it was removed just now
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _locked(path: Path, busy: str | None, remedy: str | None) -> int:
    """Opens and locks the file; its holder may remove it meanwhile, and a lock on a removed file keeps nobody out."""
    while True:
        make_directory(path.parent, remedy)
        descriptor = _open(path, remedy)
        try:
            with named_errors(path, "locked", "use a disk that supports file locks"):
                _lock(descriptor, path, busy)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _open(path: Path, remedy: str | None) -> int:
    """Opens the file for writing without truncating it or following a symbolic link."""
    try:
        with named_errors(path, "opened as a lock", remedy):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.EISDIR):
            raise OSError(f"{path} is a link or a directory instead of a lock file; remove it.") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file, so it cannot be a lock; remove it.")
    return descriptor


def _lock(descriptor: int, path: Path, busy: str | None) -> None:
    assert fcntl is not None
    for left in reversed(range(TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if left:
                time.sleep(PAUSE)
    if busy is not None:
        raise BlockingIOError(busy)
    print(f"Waiting for another process that works in {path.parent}.", file=sys.stderr, flush=True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
