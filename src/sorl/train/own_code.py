"""Errors of a user's own agent, as one sentence with the method and the line in its file."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from sorl.agents import AbstractAgent
from sorl.agents.shared.metrics import refuse_unusable
from sorl.system.error_places import place


@contextlib.contextmanager
def errors_of(agent: AbstractAgent, method: str) -> Iterator[None]:
    """Turns an error of a user's agent into a `ValueError`, one sentence; errors of this package's agents stay."""
    try:
        yield
    except Exception as error:  # the user's code may raise anything
        if not is_own(agent):
            raise
        reason = " ".join(str(error).split())
        shown = reason if len(reason) <= 300 else f"{reason[:300]}.."
        where = place(error)
        raise ValueError(
            f"{type(agent).__name__}.{method} failed with {type(error).__name__}: {shown} ({where}); mend it."
        ) from error


def refuse_unusable_losses(agent: AbstractAgent, state: Any, *arguments: Any) -> None:
    """Raises a `ValueError` if the `losses` of a user's agent fail or are no scalar floats; others are tested."""
    if is_own(agent):
        with errors_of(agent, "losses"):
            found = jax.eval_shape(partial(type(agent).losses, agent), state, *arguments)
        refuse_unusable(type(agent).__name__, found, "losses")


def is_own(agent: AbstractAgent) -> bool:
    """Whether the agent is a user's own."""
    return type(agent).__module__.partition(".")[0] != "sorl"
