"""Checks of a policy's inputs: observations of the right size with finite numbers, and typed random keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sorl.policy.exported import real_numbers


def checked_observation(observation: Any, size: int, action_size: int, kind: type) -> np.ndarray:
    """Converts an observation, or a batch of them, to a numpy array of dtype `kind`.

    **Arguments:** `size` of an observation; `action_size`, for the error message.

    Raises a `ValueError`, one sentence, if it is not an array of numbers, has another size, or is not finite in single
    precision.
    """
    # Check type, size and values in this order, so that the error names the first problem.
    _refuse_traced(observation)
    expected = f"this policy acts on shape ({size},) or a batch (.., {size})"
    values = real_numbers(observation, "observation", kind, expected)
    if values.shape[-1:] != (size,):
        raise ValueError(
            f"The observation has shape {values.shape}; {expected}: give what the environment of training gives."
        )
    finite = np.abs(values) <= np.finfo(np.float32).max
    if not finite.all():
        first = np.argwhere(~finite)[0].tolist()
        raise ValueError(
            f"The observation of shape {values.shape} holds {values[tuple(first)]} at index {first}; the policy of "
            f"shape ({size},) -> ({action_size},) needs finite numbers of single precision: check the sensor or "
            "simulator that made it."
        )
    return values


def _refuse_traced(value: Any) -> None:
    if isinstance(value, Tracer):
        raise ValueError(
            "A policy takes numbers and cannot be traced by jax.jit, jax.vmap and the like; give a batch of "
            "observations, or call sorl.policy.decide in the traced function."
        )


def refuse_other_keys(key: Any) -> None:
    """Raises a `ValueError`, one sentence, unless `key` is one typed random key."""
    _refuse_traced(key)
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape:
        is_array = isinstance(key, jax.Array | np.ndarray)
        found = f"an array of {key.dtype} and shape {key.shape}" if is_array else " ".join(repr(key).split())[:100]
        raise ValueError(f"The key is {found}; give one typed random key, such as key=jax.random.key(0).")
