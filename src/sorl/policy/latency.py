"""Measures the latency of a decision on this machine once, and keeps it in the user's cache."""

import hashlib
import json
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sorl.system.files import make_private, user_cache, write_json


Device = Any
"""A `jax.Device`, which pyright does not accept as a type."""

QUANTILE = 0.95
"""Quantile of the calls' durations in one round that counts as the round's latency."""
ROUNDS = 10
"""Number of rounds over all decisions: a single disturbance affects one round, frequent ones count."""
ROUND_SECONDS = 0.05
"""Target duration in seconds of all calls of one decision in one round."""
CALLS = (3, 30)
"""Minimum and maximum number of calls of one decision in one round."""

Decision = Callable[[], object]
"""A function that makes one decision and returns when its result is there."""


def measure(decisions: Mapping[str, Decision], *, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Measures each decision's latency in milliseconds: the 95th percentile of its calls in the second-worst round.

    **Arguments:** `decisions` by name, each of which must block until its result is there; `clock`, in seconds.
    """
    rounds = timed_rounds(decisions, ROUNDS, ROUND_SECONDS, CALLS, clock)
    return {name: 1000 * sorted(float(np.quantile(one, QUANTILE)) for one in own)[-2] for name, own in rounds.items()}


def timed_rounds(
    decisions: Mapping[Any, Decision], rounds: int, seconds: float, calls: tuple[int, int], clock: Callable[[], float]
) -> dict[Any, list[list[float]]]:
    """The seconds of the calls of each decision, by round.

    The decisions take turns, so that a slow phase of the machine affects all alike. The first call, which compiles,
    does not count.

    **Arguments:** `rounds`, their number; `seconds`, the target duration of one decision's calls in one round; `calls`,
    the minimum and maximum number of these.
    """

    def duration(decide: Decision) -> float:
        start = clock()
        decide()
        return clock() - start

    counts = {}
    for name, decide in decisions.items():
        decide()  # compiles
        counts[name] = int(np.clip(seconds / max(duration(decide), 1e-9), *calls))
    found: dict[Any, list[list[float]]] = {name: [] for name in decisions}
    for _ in range(rounds):
        for name, decide in decisions.items():
            decide()  # not measured: it refills the processor's caches after the previous decision
            found[name].append([duration(decide) for _ in range(counts[name])])
    return found


def machine(device: Device) -> dict[str, Any]:
    """The known circumstances of a measurement except the program: device, host, jax and its settings."""
    return {
        "device": device.device_kind,
        "host": platform.node(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "matmul_precision": jax.config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
        "xla_flags": os.environ.get("XLA_FLAGS"),
    }


def costs(
    circumstances: Mapping[str, Any],
    decisions: Mapping[str, Decision],
    *,
    measure_again: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The latency of each decision in milliseconds, from the user's cache or else by `measure`.

    The cache has one small file for each set of circumstances, in `sorl/latency` of the user's cache. After a change of
    the machine that the circumstances do not include, delete it or set `measure_again`.

    **Arguments:** `circumstances` on which the latencies depend, JSON-able; `decisions` by name.
    """
    path = cache_path(circumstances)
    known = {} if measure_again else _read(path)
    missing = {name: decide for name, decide in decisions.items() if name not in known}
    if missing:
        known |= measure(missing, clock=clock)
        _write(path, {"circumstances": circumstances, "milliseconds": known})
    return {name: known[name] for name in decisions}


def cache_path(circumstances: Mapping[str, Any]) -> Path:
    """The cache file for these circumstances."""
    digest = hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()
    return user_cache("latency") / f"{digest[:16]}.json"


def _read(path: Path) -> dict[str, float]:
    try:
        milliseconds = json.loads(path.read_text())["milliseconds"]
        if not all(math.isfinite(value) and value > 0 for value in milliseconds.values()):
            raise ValueError("a time is not positive")
        return milliseconds
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        warnings.warn(f"{path} cannot be used ({reason}), so the costs are measured again.", stacklevel=3)
        return {}


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        make_private(path.parent, "set XDG_CACHE_HOME to a directory of your own")
        write_json(path, content)
    except OSError as error:  # the file system of a target machine may be read-only
        reason = str(error).removesuffix(".")
        warnings.warn(f"The costs cannot be kept ({reason}), so the next process measures again.", stacklevel=3)
