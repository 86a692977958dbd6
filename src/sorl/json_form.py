"""The JSON form of options, agents and budgets, and the way back, which refuses what does not fit.

It needs nothing beyond what acting needs, so that a policy can be loaded where training's requirements are missing.
"""

import dataclasses
import types
import typing
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
    """Makes an agent from its JSON form.

    Raises a `ValueError` that begins with `where`, the name of the source, for what is missing, unknown or wrong.
    """
    name = values.get("type") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in AGENTS:
        raise ValueError(f"{where} names the agent {name!r}; the known agents are {', '.join(AGENTS)}.")
    return from_json(AGENTS[name], {key: value for key, value in values.items() if key != "type"}, where)


def from_json(cls: Any, values: Any, where: str) -> Any:
    """Makes a dataclass from its JSON form, as `agent_from_json` an agent; every field must be there, and no other."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {values!r}; expected an object with the fields of {cls.__name__}.")
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    if values.keys() != names:
        missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
        raise ValueError(
            f"{where} lacks the fields {missing} and has the unknown fields {unknown}; it was written by another "
            "version of sorl: set these fields in it by hand."
        )
    return cls(**{name: _value(hints[name], values[name], f"{where}: {name}") for name in names})


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`, or a `ValueError`; integers stand for floats, as in JSON they may."""
    if isinstance(value, dict) and "type" in value:
        return agent_from_json(value, where)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        arguments = typing.get_args(hint)
        if value is None and type(None) in arguments:
            return None
        return _value(next(argument for argument in arguments if argument is not type(None)), value, where)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if typing.get_origin(hint) is Literal and value in typing.get_args(hint):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ValueError(f"{where} is {value!r}; expected {hint}.")
