"""What hyper-parameters must satisfy, whatever the algorithm; each function raises a `ValueError`, one sentence."""

import math
from typing import Any


ANY_WEIGHT = (0.0, math.inf)
SHARE = (0.0, 1.0)


def refuse_outside(agent: Any, **ranges: tuple[float, float]) -> None:
    """Refuses a number outside its closed range, and what is no number."""
    for name, (low, high) in ranges.items():
        value = getattr(agent, name)
        # Inside jit these are tracers, whose values were checked when the agent was made.
        if isinstance(value, int | float) and not low <= value <= high:
            raise ValueError(f"{name} is {value}; give a number from {low:g} to {high:g}.")


def refuse_counts_below_one(agent: Any, *names: str) -> None:
    """Refuses a whole number below 1."""
    for name in names:
        if getattr(agent, name) < 1:
            raise ValueError(f"{name} is {getattr(agent, name)}; give a whole number >= 1.")


def refuse_empty_networks(agent: Any, *names: str) -> None:
    """Refuses hidden sizes without a layer, and layers without a unit."""
    for name in names:
        sizes = getattr(agent, name)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"{name} {sizes} makes no network; give at least one hidden layer of at least one unit.")


def refuse_unknown_aggregation(agent: Any) -> None:
    """Refuses a way to make one value of several heads that does not exist."""
    if agent.q_aggregation not in ("mean", "min"):
        raise ValueError(f"q_aggregation is {agent.q_aggregation!r}; give 'mean' or 'min'.")
