"""The record beside a data file: its size, SHA-256 and origin, verified whenever the file is opened."""

import hashlib
import os
import pathlib
from typing import Any

from sorl.system.files import named_errors, read_json, write_json


def record_path(path: pathlib.Path) -> pathlib.Path:
    """The path of a file's record: `set.npz.json` for `set.npz`."""
    return path.with_name(path.name + ".json")


def publish(temporary: pathlib.Path, path: pathlib.Path, details: dict[str, Any]) -> None:
    """Writes the record of a finished file, then renames the file, so that it never exists without its record."""
    write_record(temporary, path, details)
    with named_errors(path):
        os.replace(temporary, path)


def write_record(temporary: pathlib.Path, path: pathlib.Path, details: dict[str, Any]) -> None:
    """Writes the record of a file that has another name until it is published."""
    write_json(record_path(path), {**fingerprint(temporary), **details})


def verified(path: pathlib.Path) -> dict[str, Any] | None:
    """Verifies a file against its record and returns the record; None if the file has no record.

    Raises a `ValueError` if the size or the SHA-256 differs, or if the record is damaged.
    """
    beside = record_path(path)
    if not beside.exists():
        return None
    record = read_json(beside, f"delete it and {path}, and fetch or generate that again")
    found = fingerprint(path)
    for key, unit in (("size", " bytes"), ("sha256", "")):
        if record.get(key) != found[key]:
            raise ValueError(
                f"{path} has {key} {found[key]}{unit} but its record says {record.get(key)}{unit}, so the file was "
                "changed or damaged; delete it and fetch or generate it again."
            )
    return record


def fingerprint(path: pathlib.Path) -> dict[str, Any]:
    """The size in bytes and the SHA-256 of a file."""
    with named_errors(path, "read", "give a file that you may read"), path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
