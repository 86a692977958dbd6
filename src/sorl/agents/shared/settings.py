"""Checks of the hyper-parameters of all algorithms, by the name and the type of the field."""

import dataclasses
import functools
import types
import typing
from typing import Any, Literal, Union

from sorl.system.ranges import MAX_COUNT, MAX_NUMBER, refuse_outside


ANY_WEIGHT = (0.0, MAX_NUMBER)
SHARE = (0.0, 1.0)

MAX_LAYERS = 64
MAX_WIDTH = 65_536
MAX_STEPS = 1_024
"""Largest number of steps from noise to action, which compilation unrolls, and of steps in a window."""
MAX_CANDIDATES = 65_536

COUNTS = {
    "hidden_sizes": MAX_WIDTH,
    "critic_hidden_sizes": MAX_WIDTH,
    "width": MAX_WIDTH,
    "blocks": MAX_LAYERS,
    "critic_heads": 256,
    "discretization_steps": MAX_STEPS,
    "backprop_steps": MAX_STEPS,
    "flow_steps": MAX_STEPS,
    "denoising_steps": MAX_STEPS,
    "sampling_steps": MAX_STEPS,
    "n_step": MAX_STEPS,
    "chunk": MAX_STEPS,
    "candidates": MAX_CANDIDATES,
    "backup_candidates": MAX_CANDIDATES,
    "value_interval": MAX_COUNT,
    "policy_interval": MAX_COUNT,
}
"""The largest value of each count, by field name; the smallest is 1. So absurd sizes are refused before any memory is
allocated."""

SHARES = ("discount", "target_rate", "average_rate", "expectile")
"""Fields between 0 and 1."""


def refuse_absurd_values(agent: Any) -> None:
    """Raises a `ValueError`, one sentence, if a field of an agent or actor has an invalid value or one of another type.

    Counts and layer sizes are at least 1, shares between 0 and 1, other numbers finite and not negative, the
    learning rate and the largest norm of gradients positive. The classes themselves check fields with other ranges.
    """
    _refuse_other_types(agent)
    for field in dataclasses.fields(agent):
        name, value = field.name, getattr(agent, field.name)
        if name in COUNTS:
            refuse_no_layers(name, value)
            refuse_outside(agent, **{name: (1, COUNTS[name])})
        elif name in SHARES:
            refuse_outside(agent, **{name: SHARE})
        elif isinstance(value, int):
            refuse_outside(agent, **{name: (0, MAX_COUNT)})
        elif isinstance(value, float):
            refuse_outside(agent, **{name: ANY_WEIGHT})
        if isinstance(value, tuple) and len(value) > MAX_LAYERS:
            raise ValueError(f"{name} has {len(value)} layers; give at most {MAX_LAYERS}.")
        if name == "q_aggregation" and value not in ("mean", "min"):
            raise ValueError(f"q_aggregation is {value!r}; give 'mean' or 'min'.")
    for name in ("learning_rate", "max_grad_norm"):
        value = getattr(agent, name, None)
        if isinstance(value, int | float) and value <= 0:
            raise ValueError(f"{name} is {value}; give a number above 0.")


_hints = functools.lru_cache(maxsize=64)(typing.get_type_hints)


def _refuse_other_types(agent: Any) -> None:
    """Raises a `ValueError` if a value is not of its field's type; whole numbers are numbers, and arrays may be any."""
    hints = _hints(type(agent))
    for field in dataclasses.fields(agent):
        value, hint = getattr(agent, field.name), hints[field.name]
        if not hasattr(value, "dtype") and not _is_of_type(value, hint):
            kind = hint.__name__ if hint in (bool, int, float, str) else str(hint)
            raise ValueError(f"{field.name} of {type(agent).__name__} is {value!r}; give a value of type {kind}.")


def _is_of_type(value: Any, hint: Any) -> bool:
    """Whether a value has the type `hint`; True for a type that no hyper-parameter has.

    It does not use beartype, because a deployed policy must act without it.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is_of_type(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in parts)
    if origin is tuple and parts[1:] == (...,):
        return isinstance(value, tuple) and all(_is_of_type(item, parts[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, hint) if hint in (bool, int, str, type(None)) else True


def refuse_no_layers(name: str, value: Any) -> None:
    """Raises a `ValueError` for a count below 1, hidden sizes without layers, and layers without units."""
    if isinstance(value, tuple) and (not value or min(value) < 1):
        raise ValueError(f"{name} {value} makes no network; give at least one hidden layer of at least one unit.")
    if isinstance(value, int) and value < 1:
        raise ValueError(f"{name} is {value}; give a whole number >= 1.")
