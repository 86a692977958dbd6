"""What depends on the number of updates made: turns of parts that train less often, and falling learning rates."""

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
    """`make(state)` at every `interval`-th update, else `otherwise(state)`.

    **Arguments:** `step`, the number of updates made before this one; the first turn is at the `interval`-th update.
    If it is the same for all seeds, only one of the two branches runs, also under `vmap`.
    """
    if interval == 1:
        return make(state)
    return jax.lax.cond((step + 1) % interval == 0, make, otherwise, state)


def cosine_decay(rate: Any, step: Int[Array, ""], last: Any) -> Float[Array, ""]:
    """From `rate` at step 0 down to 0 at step `last` along half a cosine (Loshchilov & Hutter 2017, "SGDR")."""
    return 0.5 * rate * (1 + jnp.cos(jnp.pi * jnp.minimum(step.astype(jnp.float32) / last, 1.0)))


def linear_decay(rate: Any, late: Any, step: Int[Array, "*seeds"], start: Any, end: Any) -> Float[Array, "*seeds"]:
    """`rate` up to step `start`, `late` from step `end` on, and a line between them."""
    return rate + (late - rate) * jnp.clip((step.astype(jnp.float32) - start) / (end - start), 0.0, 1.0)


def no_metrics(*names: str) -> dict[str, Float[Array, ""]]:
    """Zeros that stand for the metrics of a part that has not trained yet."""
    return {name: jnp.zeros((), jnp.float32) for name in names}
