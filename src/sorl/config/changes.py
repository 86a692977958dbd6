"""The fields in which two configurations differ, and options by dotted name."""

import dataclasses
from typing import Any


def changes(before: Any, after: Any, prefix: str = "") -> set[str]:
    """The dotted names of the fields in which two configurations of the same class differ."""
    if type(before) is not type(after) or not dataclasses.is_dataclass(before):
        return set() if before == after else {prefix}
    return {
        name
        for field in dataclasses.fields(before)
        for name in changes(
            getattr(before, field.name), getattr(after, field.name), f"{prefix}.{field.name}" if prefix else field.name
        )
    }


def by_dotted_name(options: Any, prefix: str = "") -> dict[str, Any]:
    """The options in a JSON form, which may be nested, by names such as `agent.discount`."""
    if not isinstance(options, dict):
        return {prefix: options}
    return {
        name: value
        for key, part in options.items()
        for name, value in by_dotted_name(part, f"{prefix}.{key}" if prefix else key).items()
    }
