"""Converts options, agents and budgets to JSON and back, and refuses unknown or wrong fields.

It imports only what acting needs, so that a policy can be loaded without the requirements of training.
"""

import dataclasses
import math
import reprlib
import types
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sorl.agents import AbstractAgent, Budget
from sorl.agents.actors import AbstractActor
from sorl.agents.budget import of_today
from sorl.agents.registry import find, find_actor
from sorl.functional.verifiers import AbstractVerifier, named
from sorl.system.names import nearest


ABSENT = "absent"
"""The metadata key under which a field has its value for files that lack it, if this is not the field's default."""


def to_json(config: Any) -> Any:
    """The JSON form of a configuration; that of an agent or an actor includes the name of its class."""
    if isinstance(config, AbstractVerifier):
        return config.name
    if dataclasses.is_dataclass(config):
        has_type = isinstance(config, AbstractAgent | AbstractActor)
        fields = {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
        return {"type": type(config).__name__, **fields} if has_type else fields
    if isinstance(config, tuple):
        return [to_json(item) for item in config]
    if isinstance(config, np.generic):
        return config.item()
    return str(config) if isinstance(config, Path) else config


def agent_from_json(values: Any, where: str) -> AbstractAgent:
    """Creates an agent from its JSON form.

    Raises a `ValueError` that begins with `where`, the name of the source, if a field is missing, unknown or wrong.
    """
    reader = _Reader(where)
    return reader.finish(reader.named(find, "agent", values, ""))


def actor_from_json(values: Any, where: str) -> AbstractActor:
    """Creates an actor from its JSON form; raises as `agent_from_json` does."""
    reader = _Reader(where)
    return reader.finish(reader.named(find_actor, "actor", values, ""))


def budget_from_json(values: Any, where: str) -> Budget:
    """Makes a budget from its JSON form, also from that of version 0.1.0; raises as `from_json` does."""
    return from_json(Budget, of_today(values) if isinstance(values, dict) else values, where)


def from_json(cls: Any, values: Any, where: str) -> Any:
    """Creates a dataclass from its JSON form.

    A missing field, as in a file of an earlier version, takes its default, and one `UserWarning` names all such fields.
    Raises a `ValueError` that begins with `where`, the name of the source, if a field is unknown or wrong, or if one
    without a default is missing.
    """
    reader = _Reader(where)
    return reader.finish(reader.object(cls, values, ""))


class _Reader:
    """Reads one source; `name` is the dotted name of the value that is read, empty for the whole."""

    def __init__(self, where: str):
        self._where = where
        self._missing: list[str] = []

    def finish(self, result: Any) -> Any:
        """Warns of missing fields, and returns the result."""
        if self._missing:
            warnings.warn(
                f"{self._where} does not have {', '.join(self._missing)}; the values of the version that wrote it are "
                "used.",
                stacklevel=3,
            )
        return result

    def named(self, known: Callable[[str, str], Any], noun: str, values: Any, name: str) -> Any:
        """An object of the class whose name the values have; `known` finds it, as `registry.find` does."""
        kind = values.get("type") if isinstance(values, dict) else None
        if not isinstance(kind, str):
            found = kind if isinstance(values, dict) else values
            raise self._wrong(name or f"the {noun}", found, f"an object whose type is the name of an {noun}")
        fields = {key: value for key, value in values.items() if key != "type"}
        return self.object(known(kind, self._where), fields, name)

    def object(self, cls: Any, values: Any, name: str) -> Any:
        """A dataclass of the class `cls`."""
        if not isinstance(values, dict):
            raise self._wrong(name, values, f"an object with the fields of {cls.__name__}")
        hints = typing.get_type_hints(cls)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        prefix = f"{name}." if name else ""
        for key in values:
            if key not in fields:
                raise ValueError(
                    f"{self._where} has the unknown field {_shown(prefix + str(key))}{nearest(str(key), [*fields])}; "
                    "remove it, or read the file with the version of sorl that wrote it."
                )
        absent = {key: self._absent(field, prefix + key) for key, field in fields.items() if key not in values}
        known = {key: self.value(hints[key], value, prefix + key) for key, value in values.items()}
        try:
            return cls(**known, **absent)
        except ValueError as error:
            raise ValueError(f"{self._where} cannot be used: {error}") from error

    def value(self, hint: Any, value: Any, name: str) -> Any:
        """A value of the type `hint`; where a real number is expected, a whole number is accepted too."""
        if hint is AbstractVerifier and _may_be(hint, value):
            try:
                return named(value)
            except ValueError:
                raise self._wrong(name, value, _words(hint)) from None
        if isinstance(hint, type) and issubclass(hint, AbstractAgent):
            return self.named(find, "agent", value, name)
        if dataclasses.is_dataclass(hint):
            return self.object(hint, value, name)
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            for alternative in typing.get_args(hint):
                if _may_be(alternative, value):
                    return self.value(alternative, value, name)
        elif typing.get_origin(hint) is tuple and isinstance(value, list):
            return tuple(self.value(typing.get_args(hint)[0], item, f"{name}[{i}]") for i, item in enumerate(value))
        elif hint is float and _may_be(float, value):
            number = _float(value)
            if math.isfinite(number):
                return number
            raise self._wrong(name, value, "a finite number")
        elif _may_be(hint, value):
            return Path(value) if hint is Path else value
        raise self._wrong(name, value, _words(hint))

    def _absent(self, field: Any, name: str) -> Any:
        if ABSENT in field.metadata:
            value = field.metadata[ABSENT]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise ValueError(f"{self._where} lacks {name}; restore it from a copy.")
        self._missing.append(name)
        return value

    def _wrong(self, name: str, value: Any, expected: str) -> ValueError:
        subject = f"{self._where}: {name}" if name else self._where
        return ValueError(f"{subject} is {_shown(value)}; expected {expected}.")


def _may_be(hint: Any, value: Any) -> bool:
    """Whether a JSON value can represent a type."""
    if hint is type(None):
        return value is None
    if typing.get_origin(hint) is tuple:
        return isinstance(value, list)
    if typing.get_origin(hint) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str) and "\0" not in value
    if hint is AbstractVerifier:
        return isinstance(value, str)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, dict)
    return hint in (int, str, bool) and type(value) is hint


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number with hundreds of digits
        return math.inf


def _words(hint: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "a string", bool: "true or false", Path: "a path"}
    if hint is type(None):
        return "null"
    if hint is AbstractVerifier:
        return "a verifier such as 'min' or 'softmax0.5'"
    if hint in plain:
        return plain[hint]
    if dataclasses.is_dataclass(hint):
        return f"an object with the fields of {getattr(hint, '__name__', hint)}"
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, arguments))
    if typing.get_origin(hint) is tuple:
        return f"a list, each item {_words(arguments[0])}"
    return " or ".join(map(_words, arguments))


def _shown(value: Any) -> str:
    """A value for a message, shortened if it is long or deeply nested."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, 60, 60, 40
    return short.repr(value)
