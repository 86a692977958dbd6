"""What the record beside a converted npz file says of the file's source."""

import os
import pathlib
from typing import Any

from sorl.data import records
from sorl.system.files import read_json


def record_of(path: pathlib.Path) -> pathlib.Path:
    """The path of the record of own logs; for a link without one beside it, of the file that it leads to."""
    beside = records.record_path(path)
    return beside if beside.exists() else records.record_path(pathlib.Path(os.path.realpath(path)))


def is_converted(path: pathlib.Path) -> bool:
    """Whether a file is own logs that `sorl.convert` wrote, by the record beside it."""
    return _content(path).get("source") == "converted"


def about(path: pathlib.Path, sha256: str) -> tuple[Any, str | None]:
    """The names of columns, the split and the like that `sorl.convert` recorded, and a note if they are not used.

    **Arguments:** `sha256`, the digest of the file.

    **Returns:** `Recording.about` of the source, or None without a record; and one sentence if the file is not the one
    that was recorded, else None.
    """
    beside = record_of(path)
    content = _content(path)
    if "about" not in content or content.get("sha256") == sha256:
        return content.get("about"), None
    return None, (
        f"{path.name} was changed after its conversion, so the names of columns and the split in {beside.name} are not "
        "used; convert its source again, or remove that record."
    )


def _content(path: pathlib.Path) -> dict[str, Any]:
    """The record beside a file; empty without one."""
    try:
        return read_json(record_of(path))
    except (ValueError, FileNotFoundError):  # a file of this name may be the user's own, and of any form
        return {}
