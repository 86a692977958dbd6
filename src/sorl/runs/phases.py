"""The phases of a run: the data that it was trained on, and the update from which each data set was used."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sorl.data.recorded.origin import held_out
from sorl.system.files import read_json


def phases(directory: Path) -> list[dict[str, Any]]:
    """The phases of a run, each `{"from_step": ..., "data": provenance}`, by `from_step`; empty for a new directory.

    Raises a `ValueError` that names `versions.json` if it is damaged.
    """
    path = directory / "versions.json"
    if not path.exists():
        return []
    recorded = read_json(path)
    first, later = {"from_step": 0, "data": recorded.get("data")}, recorded.get("phases", [])
    if not isinstance(later, list) or not all(map(_is_phase, [first, *later])):
        raise ValueError(f"{path} does not say what the data were; restore it from a copy.")
    return [first, *later]


def _is_phase(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and type(found.get("from_step")) is int
        and isinstance(found.get("data"), dict)
        and isinstance(found["data"].get("sha256"), str)
    )


def fingerprint(provenance: Mapping[str, Any]) -> dict[str, str | None]:
    """The SHA-256 of the training data, and of the validation data if they have their own file (else None).

    And, under `reading`, that of what a file beside the data says of them: the columns of a table, and the episodes
    that converted data hold out (None: nothing).
    """
    validation = provenance.get("validation") or {}
    said = [provenance.get("columns"), held_out(provenance.get("about")) or None]
    reading = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest() if any(said) else None
    return {"training": provenance["sha256"], "validation": validation.get("sha256"), "reading": reading}


def expected_data(directory: Path, step: int, saved: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The fingerprint of the data that a run must continue with after a checkpoint.

    It is `saved`, which the checkpoint holds, unless a phase begins at `step`. If `saved` is None, it is that of the
    phase that `step` belongs to, and None if the run has no record of its data yet.
    """
    earlier = [phase for phase in phases(directory) if phase["from_step"] <= step]
    if not earlier:
        return saved
    return fingerprint(earlier[-1]["data"]) if saved is None or earlier[-1]["from_step"] == step else saved
