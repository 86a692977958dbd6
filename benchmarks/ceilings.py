"""The device's limits at the shapes of an update: FLOP/s of matrix products, and bytes/s of memory."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def seconds_of(call: Callable[[], Any], *, at_least: float = 0.2) -> float:
    """Mean wall-clock seconds of a `call`, over as many calls as fill `at_least` seconds; the first is not counted."""
    jax.block_until_ready(call())
    count, elapsed = 0, 0.0
    start = time.perf_counter()
    while elapsed < at_least:
        jax.block_until_ready(call())
        count += 1
        elapsed = time.perf_counter() - start
    return elapsed / count


def interleaved(calls: dict[str, Callable[[], Any]], *, rounds: int, at_least: float = 0.2) -> dict[str, list[float]]:
    """Seconds of each call, one value per round; the calls take turns, so that other load affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds_of(call, at_least=at_least))
    return times


def matmul_chain(rows: int, width: int, *, length: int = 16) -> tuple[Callable[[], jax.Array], float]:
    """A chain of products [rows, width] x [width, width]. **Returns:** a function that runs it, and its FLOPs."""
    keys = jax.random.split(jax.random.key(0), length)
    x = jax.random.normal(keys[0], (rows, width))
    weights = [jax.random.normal(key, (width, width)) / width**0.5 for key in keys]

    @jax.jit
    def chain(x, weights):
        for weight in weights:
            x = x @ weight
        return x

    return partial(chain, x, weights), 2.0 * rows * width * width * length


def stream(megabytes: int = 256) -> tuple[Callable[[], jax.Array], float]:
    """Reads two large arrays and writes a third. **Returns:** a function that does so, and the bytes that it moves."""
    size = megabytes * 2**20 // 4 // 3
    x, y = jnp.ones(size), jnp.ones(size)

    @jax.jit
    def add(x, y):
        return x + 0.5 * y

    return partial(add, x, y), 3.0 * 4 * size
