"""Names and units of a policy's observations and actions, from its provenance or from a file."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sorl.policy.policy import Policy
from sorl.system.files import read_json


@dataclasses.dataclass(frozen=True)
class Names:
    """Names and units of observations and actions, in their order; None if they are not known."""

    observations: tuple[str, ...] | None = None
    observation_units: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    action_units: tuple[str, ...] | None = None


def names_of(policy: Policy, path: Path | None = None) -> Names:
    """The names that the policy's data had, replaced by those of a JSON file with any of the fields of `Names`.

    Raises a `ValueError`, one sentence, if the file holds something else or a list of another length.
    """
    found = {
        "observations": _of_length(_recorded(policy, "observation_names"), policy.observation_size),
        "actions": _of_length(_recorded(policy, "action_names"), policy.action_size),
    }
    return Names(**found | ({} if path is None else _read(path, policy)))


def frame_rate(policy: Policy) -> float | None:
    """The control steps per second of the policy's data; None if they are not known."""
    found = _recorded(policy, "frame_rate")
    return float(found) if isinstance(found, int | float) and found > 0 else None


def _read(path: Path, policy: Policy) -> dict[str, tuple[str, ...]]:
    content, known = read_json(path), [field.name for field in dataclasses.fields(Names)]
    for name, value in content.items():
        size = policy.observation_size if name.startswith("observation") else policy.action_size
        if name not in known:
            raise ValueError(f"{path} has the field {name!r}; give some of {', '.join(known)}.")
        if _of_length(value, size) is None:
            raise ValueError(
                f"{path} has {name} that are not a list of {size} texts, as this policy needs; correct it."
            )
    return {name: tuple(value) for name, value in content.items()}


def _of_length(value: Any, size: int) -> tuple[str, ...] | None:
    fits = isinstance(value, list) and len(value) == size and all(isinstance(word, str) for word in value)
    return tuple(value) if fits else None


def _recorded(policy: Policy, key: str) -> Any:
    """What the provenance says of the data under `key`, at any depth; None if it says nothing."""
    versions = policy.provenance.get("versions")
    data = versions.get("data") if isinstance(versions, dict) else None
    return next((found[key] for found in _objects(data) if found.get(key) is not None), None)


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects in a JSON object, the outer ones first."""
    level = [content] if isinstance(content, dict) else []
    while level:
        yield from level
        level = [inner for outer in level for inner in outer.values() if isinstance(inner, dict)]
