"""A random sample of steps of a stream, of which every step has the same chance."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped


class Steps(NamedTuple):
    """Sampled steps."""

    observations: Shaped[np.ndarray, "steps observation"]
    actions: Shaped[np.ndarray, "steps action"]
    episode: Int[np.ndarray, " steps"]
    """The number of the episode of each step."""


class Reservoir:
    """At most `size` steps: each gets a random number, and those with the smallest are kept."""

    def __init__(self, size: int, seed: int = 0):
        self._size, self._random = size, np.random.default_rng(seed)
        self._parts: list[tuple[Float[np.ndarray, " steps"], Steps]] = []
        self._kept = 0

    def add(self, steps: Steps) -> None:
        """Offers the steps of one episode."""
        self._parts.append((self._random.random(len(steps.actions)), steps))
        self._kept += len(steps.actions)
        if self._kept > 2 * self._size:
            self._prune()

    def steps(self) -> Steps:
        """The sample, in random order of episodes and steps."""
        self._prune()
        return self._parts[0][1]

    def _prune(self) -> None:
        numbers = np.concatenate([number for number, _ in self._parts])
        columns = [np.concatenate(column) for column in zip(*(steps for _, steps in self._parts), strict=True)]
        chosen = np.argsort(numbers)[: self._size]
        self._parts = [(numbers[chosen], Steps(*(column[chosen] for column in columns)))]
        self._kept = len(chosen)
