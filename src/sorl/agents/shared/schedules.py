"""Schedules over the number of updates: parts that train less often, and decaying learning rates."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


State = TypeVar("State")


def every(
    interval: int,
    step: Int[Array, ""],
    make: Callable[[State], State],
    state: State,
    otherwise: Callable[[State], State] = lambda unchanged: unchanged,
) -> State:
    """Returns `make(state)` in every `interval`-th update, else `otherwise(state)`.

    **Arguments:** `step`, the number of earlier updates; `make` is first called in the `interval`-th update. If `step`
    is the same for all seeds, only one of the two branches runs, also under `vmap`.
    """
    if interval == 1:
        return make(state)
    return jax.lax.cond((step + 1) % interval == 0, make, otherwise, state)


def cosine_decay(rate: Any, step: Int[Array, ""], last: Any) -> Float[Array, ""]:
    """Decays from `rate` at step 0 to 0 at step `last` along half a cosine (Loshchilov & Hutter 2017, "SGDR")."""
    return 0.5 * rate * (1 + jnp.cos(jnp.pi * jnp.minimum(step.astype(jnp.float32) / last, 1.0)))


def linear_decay(rate: Any, late: Any, step: Int[Array, "*seeds"], start: Any, end: Any) -> Float[Array, "*seeds"]:
    """`rate` up to step `start`, `late` from step `end` on, and linear in between."""
    return rate + (late - rate) * jnp.clip((step.astype(jnp.float32) - start) / (end - start), 0.0, 1.0)


def no_metrics(*names: str) -> dict[str, Float[Array, ""]]:
    """Zeros as the metrics of a part that has not been trained yet."""
    return {name: jnp.zeros((), jnp.float32) for name in names}
