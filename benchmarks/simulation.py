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
        self._processes = ProcessPoolExecutor(cores, mp_context=spawn, initializer=_create, initargs=(env,))

    def close(self) -> None:
        """Ends the processes."""
        self._processes.shutdown()

    def seconds_of_a_step(self, seed: int, steps: int = 200) -> float:
        """Seconds in which one core makes a step while the others do too."""
        self._together(seed, 1)  # all have started
        return float(np.mean(self._together(seed, steps)))

    def _together(self, seed: int, steps: int) -> list[float]:
        given = [self._processes.submit(_simulate, seed + number, steps) for number in range(self._cores)]
        return [future.result() for future in given]


_environment: Any = None


def _create(env: str) -> None:
    global _environment
    _environment = OgbenchEnvironment(env, "pre")


def _simulate(seed: int, steps: int) -> float:
    """Seconds of one of `steps` steps."""
    random = np.random.default_rng(seed)
    _environment.reset(seed)
    actions = random.uniform(-1, 1, (steps, _environment.sizes()[1])).astype(np.float32)
    start = time.perf_counter()
    for action in actions:
        _environment.step(action)
    return (time.perf_counter() - start) / steps
