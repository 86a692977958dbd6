"""The fields in which two configurations differ."""

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
