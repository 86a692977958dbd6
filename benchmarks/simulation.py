"""The time of a simulator's step while every core simulates, which may be longer than that of one core alone."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from sorl.environments.ogbench import OgbenchEnvironment


class Simulators:
    """A process for each core that simulates by itself, with random actions."""

    def __init__(self, env: str, cores: int):
        self._cores = cores
        spawn = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads
        given = env, spawn.Barrier(cores)
        self._processes = ProcessPoolExecutor(cores, mp_context=spawn, initializer=_create, initargs=given)

    def close(self) -> None:
        """Ends the processes."""
        self._processes.shutdown()

    def seconds_of_a_step(self, seed: int, steps: int = 200) -> float:
        """Seconds in which one core makes a step while the others do too."""
        found = [self._processes.submit(_simulate, seed + number, steps) for number in range(self._cores)]
        return float(np.mean([future.result() for future in found]))


_environment: Any = None
_all_ready: Any = None


def _create(env: str, all_ready: Any) -> None:
    global _environment, _all_ready
    _environment, _all_ready = OgbenchEnvironment(env, "pre"), all_ready


def _simulate(seed: int, steps: int) -> float:
    """Seconds of one of `steps` steps."""
    random = np.random.default_rng(seed)
    _environment.reset(seed)
    actions = random.uniform(-1, 1, (steps, _environment.sizes()[1])).astype(np.float32)
    _all_ready.wait()
    start = time.perf_counter()
    for action in actions:
        _environment.step(action)
    return (time.perf_counter() - start) / steps
