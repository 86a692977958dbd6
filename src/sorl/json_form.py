"""The JSON form of options, agents and budgets, and the way back, which refuses what does not fit.

It needs nothing beyond what acting needs, so that a policy can be loaded where training's requirements are missing.
"""

import dataclasses
import types
import typing
import warnings
from pathlib import Path
from typing import Any, Literal

from sorl.agents import AGENTS, AbstractAgent


def to_json(config: Any) -> Any:
    """The JSON form of a configuration; an agent carries the name of its class."""
    if isinstance(config, AbstractAgent):
        fields = {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
        return {"type": type(config).__name__, **fields}
    if dataclasses.is_dataclass(config):
        return {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_json(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def agent_from_json(values: Any, where: str) -> AbstractAgent:
    """Makes an agent from its JSON form, as `from_json` any other dataclass.

    Raises a `ValueError` that begins with `where`, the name of the source, for what is missing, unknown or wrong.
    """
    defaults: list[str] = []
    agent = _agent(values, where, defaults)
    _warn_of_defaults(where, defaults)
    return agent


def from_json(cls: Any, values: Any, where: str) -> Any:
    """Makes a dataclass from its JSON form.

    Fields that are missing take their defaults, with one warning that names them all: files of older versions lack the
    fields that are younger. Raises a `ValueError` that begins with `where`, the name of the source, for an unknown
    field, a value of another type, or a missing field without a default.
    """
    defaults: list[str] = []
    made = _dataclass(cls, values, where, defaults)
    _warn_of_defaults(where, defaults)
    return made


def _warn_of_defaults(where: str, names: list[str]) -> None:
    if names:
        warnings.warn(f"{where} does not have {', '.join(names)}; the defaults are taken.", stacklevel=3)


def _agent(values: Any, where: str, defaults: list[str], prefix: str = "") -> AbstractAgent:
    name = values.get("type") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in AGENTS:
        raise ValueError(f"{where} names the agent {name!r}; the known agents are {', '.join(AGENTS)}.")
    fields = {key: value for key, value in values.items() if key != "type"}
    return _dataclass(AGENTS[name], fields, where, defaults, prefix)


def _dataclass(cls: Any, values: Any, where: str, defaults: list[str], prefix: str = "") -> Any:
    """Adds the dotted names of missing fields to `defaults`."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {values!r}; expected an object with the fields of {cls.__name__}.")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(map(str, values.keys() - fields.keys()))
    if unknown:
        raise ValueError(
            f"{where} has unknown fields ({', '.join(unknown)}); install the version of sorl that wrote it, or remove "
            "them if they were added by hand."
        )
    missing = [name for name in fields if name not in values]
    required = [name for name in missing if not _has_default(fields[name])]
    if required:
        raise ValueError(f"{where} lacks {', '.join(required)}; restore it from a copy.")
    defaults.extend(prefix + name for name in missing)
    return cls(
        **{
            name: _value(hints[name], value, f"{where}: {name}", defaults, f"{prefix}{name}.")
            for name, value in values.items()
        }
    )


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _value(hint: Any, value: Any, where: str, defaults: list[str], prefix: str) -> Any:
    """`value` as the type `hint`, or a `ValueError`; integers stand for floats, as in JSON they may."""
    if isinstance(value, dict) and "type" in value:
        return _agent(value, where, defaults, prefix)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, where, defaults, prefix)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        arguments = typing.get_args(hint)
        if value is None and type(None) in arguments:
            return None
        chosen = next(argument for argument in arguments if argument is not type(None))
        return _value(chosen, value, where, defaults, prefix)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(typing.get_args(hint)[0], item, where, defaults, prefix) for item in value)
    if typing.get_origin(hint) is Literal and value in typing.get_args(hint):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ValueError(f"{where} is {value!r}; expected {hint}.")
