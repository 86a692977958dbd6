"""Arrays as networks and devices take them: actions inside (-1, 1), single precision, aligned memory."""

import math

import numpy as np
from jaxtyping import Float, Shaped


ACTION_LIMIT = 1 - 1e-5
"""Actions are clipped to this magnitude, so that policies with a tanh can reach all of them."""


def network_actions(actions: Float[np.ndarray, "rows action"]) -> Float[np.ndarray, "rows action"]:
    """Actions in the networks' units, clipped to +-(1 - 1e-5), in single precision."""
    return np.clip(actions, -ACTION_LIMIT, ACTION_LIMIT).astype(np.float32, copy=False)


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
    """An uninitialised array, aligned to 64 bytes so that JAX on a CPU needs no copy."""
    count = math.prod(shape) * dtype.itemsize
    memory = np.empty(count + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count].view(dtype).reshape(shape)
