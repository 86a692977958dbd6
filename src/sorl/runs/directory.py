"""The lock on a run directory, checks for symbolic links, and clean-up after a failed start."""

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
"""The files that training writes, besides the policies."""
POLICIES = ("policy-seed-*", "policy-member-*")
"""The names of policies, one for each training seed, or for each member of a population."""


def assessment_path(directory: Path) -> Path:
    """The path of a run's `assessment.json`, which `sorl.assess` writes and `sorl.report` reads."""
    return directory / "assessment.json"


@contextmanager
def sole_trainer(directory: Path) -> Iterator[None]:
    """Locks a run directory for training; creates the directory if missing.

    If an exception is raised before the run has a checkpoint, the files written since are removed, and the directories
    that were created too. The system releases the lock when the process ends, also if it is killed.

    Raises a `BlockingIOError` if another process trains there, and an `OSError` if a file that training writes is a
    symbolic link.
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
            with suppress(OSError):  # it is not empty
                path.rmdir()
        raise


def refuse_links(directory: Path) -> None:
    """Raises an `OSError` if a file that training writes is a symbolic link, which may lead outside the directory."""
    checkpoints = directory / "checkpoints"
    own = [directory / name for name in WRITTEN] + [path for pattern in POLICIES for path in directory.glob(pattern)]
    for path in own + (list(checkpoints.iterdir()) if checkpoints.is_dir() else []):
        if path.is_symlink():
            raise OSError(f"{path} is a symbolic link to {os.readlink(path)}; put the file itself in its place.")


@contextmanager
def _removed_unless_begun(directory: Path) -> Iterator[None]:
    before = _written(directory)
    try:
        yield
    except BaseException:
        # The name of an unfinished checkpoint is not a plain number.
        if not any(path.name.isdecimal() for path in (directory / "checkpoints").glob("*")):
            for name in _written(directory) - before:
                _remove(directory / name)
        raise


def _remove(path: Path) -> None:
    """Removes a file or directory if it can; otherwise raises nothing, so that the original error is reported.

    It tries for a second, because threads of a failed checkpoint may still be writing.
    """
    for _ in range(20):
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            return
        except OSError:
            time.sleep(0.05)


def _written(directory: Path) -> set[str]:
    policies = {path.name for pattern in POLICIES for path in directory.glob(f"{pattern}.sorl")}
    return policies | {name for name in WRITTEN if os.path.lexists(directory / name)}
