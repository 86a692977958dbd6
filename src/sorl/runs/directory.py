"""The directory of a run: held by one training at a time, free of links, and removed if a start fails."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sorl.system.locks import exclusive


WRITTEN = (
    ".lock",
    "config.json",
    "versions.json",
    "bad_seeds.json",
    "failed_evaluations.json",
    "metrics.jsonl",
    "metrics.csv",
    "timings.jsonl",
    "checkpoints",
    "tensorboard",
    "wandb",
)
"""What training writes, besides the policies."""


@contextmanager
def sole_trainer(directory: Path) -> Iterator[None]:
    """A context in which no other process trains in the run directory, which is made if it is missing.

    If an exception leaves it before the run has a checkpoint, what the context wrote is removed again, and with it the
    directory if it was missing before. Raises a `BlockingIOError` if another process trains there, and an `OSError` if
    a file that training writes is a symbolic link. The system frees the lock however a process ends.
    """
    lock = directory / ".lock"
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    created = not os.path.lexists(lock)
    busy = f"Another process trains the run in {directory}; wait for it, or stop it first."
    try:
        with exclusive(lock, busy):
            refuse_links(directory)
            with _removed_unless_begun(directory):
                yield
    except BaseException as error:
        if created and not isinstance(error, BlockingIOError) and not _written(directory) - {".lock"}:
            lock.unlink(missing_ok=True)
        for path in missing:
            with suppress(OSError):  # something is in it
                path.rmdir()
        raise


def refuse_links(directory: Path) -> None:
    """Raises an `OSError` if a file that training writes is a symbolic link, which would lead it elsewhere."""
    checkpoints = directory / "checkpoints"
    own = [directory / name for name in WRITTEN] + list(directory.glob("policy-seed-*"))
    for path in own + (list(checkpoints.iterdir()) if checkpoints.is_dir() else []):
        if path.is_symlink():
            raise OSError(f"{path} is a symbolic link to {os.readlink(path)}; put the file itself in its place.")


@contextmanager
def _removed_unless_begun(directory: Path) -> Iterator[None]:
    before = _written(directory)
    try:
        yield
    except BaseException:
        # One that was not finished has a longer name.
        if not any(path.name.isdecimal() for path in (directory / "checkpoints").glob("*")):
            for name in _written(directory) - before:
                _remove(directory / name)
        raise


def _remove(path: Path) -> None:
    """Removes a file or directory; what cannot be removed stays, so that the error before it is the one that is told.

    Threads of a checkpoint that failed may write for a moment yet: a directory is tried for a second.
    """
    for _ in range(20):
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            return
        except OSError:
            time.sleep(0.05)


def _written(directory: Path) -> set[str]:
    policies = {path.name for path in directory.glob("policy-seed-*.sorl")}
    return policies | {name for name in WRITTEN if os.path.lexists(directory / name)}
