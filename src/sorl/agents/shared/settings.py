"""What hyper-parameters must satisfy, whatever the algorithm; each function raises a `ValueError`, one sentence."""

import dataclasses
from typing import Any

from sorl.system.ranges import MAX_COUNT, MAX_NUMBER, refuse_outside as refuse_outside


ANY_WEIGHT = (0.0, MAX_NUMBER)
SHARE = (0.0, 1.0)

MAX_LAYERS = 64
MAX_WIDTH = 65_536
MAX_STEPS = 1_024
"""Most steps from noise to action, which are unrolled when a decision is compiled, and most of a window."""
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
}
"""By a field's name, its highest value; a file with absurd sizes is refused before memory is asked for."""


def refuse_absurd_values(agent: Any) -> None:
    """Refuses what no field of any agent may be: infinite, NaN, negative, or larger than anything sensible."""
    for field in dataclasses.fields(agent):
        value = getattr(agent, field.name)
        if field.name in COUNTS:
            refuse_outside(agent, **{field.name: (1, COUNTS[field.name])})
        elif isinstance(value, int):
            refuse_outside(agent, **{field.name: (0, MAX_COUNT)})
        elif isinstance(value, float):
            refuse_outside(agent, **{field.name: ANY_WEIGHT})
        if isinstance(value, tuple) and len(value) > MAX_LAYERS:
            raise ValueError(f"{field.name} has {len(value)} layers; give at most {MAX_LAYERS}.")
    rate = getattr(agent, "learning_rate", None)
    if isinstance(rate, int | float) and rate <= 0:
        raise ValueError(f"learning_rate is {rate}; give a number above 0.")


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
