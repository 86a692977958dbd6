"""Reads HDF5 files that may be damaged or malicious: nothing is unpickled, and no other file is opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sorl.system.files import refuse_special


REAL_NUMBERS = "fiub"
MOST_LEVELS = 16


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Opens a file for reading; raises a `ValueError`, one sentence, if it is damaged."""
    import h5py

    refuse_special(path, "HDF5 file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({_reason(error)}); give an undamaged file.") from error
    with file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError) as error:  # h5py's errors about damaged content
            raise ValueError(f"{path} is damaged ({_reason(error)}); give an undamaged file.") from error


def array(group: Any, key: str, where: str) -> Any:
    """A data set of real numbers; raises a `ValueError` if there is none, or if it is something else.

    Links to other files, and content that lies outside of this one, are refused.
    """
    found = member(group, key, where)
    if found is None or not hasattr(found, "dtype"):
        raise ValueError(f"{where} lacks {key}; it has {', '.join(group)}.")
    if found.dtype.kind not in REAL_NUMBERS:
        raise ValueError(f"{key} of {where} has dtype {found.dtype}; give arrays of real numbers.")
    if found.is_virtual or found.external:
        raise ValueError(f"{key} of {where} lies in another file; store it in this one.")
    if not found.shape:
        raise ValueError(f"{key} of {where} is a single number; give one for each step.")
    return found


def member(group: Any, key: str, where: str) -> Any:
    """A group or data set within a group, by its path; None if there is none. Raises for a link to another file."""
    import h5py

    for name in key.split("/"):
        if not isinstance(group, h5py.Group) or name not in group:
            return None
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{key} of {where} is a link to another file; store it in this one.")
        file, group = group.file, group[name]
        if group.file != file:  # by way of a soft link
            raise ValueError(f"{key} of {where} is a link to another file; store it in this one.")
    return group


def group(parent: Any, key: str, where: str) -> Any:
    """A group within a group, by its path; raises a `ValueError` if there is none, or an array in its place."""
    found = member(parent, key, where)
    if found is None or hasattr(found, "dtype"):
        raise ValueError(f"{where} lacks the group {key}; it has {', '.join(parent)}.")
    return found


def is_vector(found: Any) -> bool:
    """Whether a member is an array of numbers with at most one axis beside the steps, and so no image."""
    return hasattr(found, "dtype") and found.dtype.kind in REAL_NUMBERS and found.ndim in (1, 2)


def leaves(group: Any, where: str, prefix: str = "") -> dict[str, Any]:
    """All data sets below a group by their paths, in alphabetical order."""
    if prefix.count("/") > MOST_LEVELS:
        raise ValueError(
            f"{where} has groups nested more than {MOST_LEVELS} deep; remove links of groups to themselves."
        )
    found = {}
    for key in sorted(group):
        below = member(group, key, where)
        if hasattr(below, "dtype"):
            found[prefix + key] = below
        elif below is not None:
            found |= leaves(below, where, f"{prefix}{key}/")
    return found


def _reason(error: Exception) -> str:
    text = str(error.args[0]) if error.args else type(error).__name__
    text = error.strerror or text if isinstance(error, OSError) else text
    return text.strip(" .'\"")[:200]
