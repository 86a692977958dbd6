"""Counts the steps of a stream that repeat an earlier one, by their hashes and in bounded memory."""

import numpy as np
from jaxtyping import Shaped, UInt64


MOST_HASHES = 1 << 22
"""Hashes kept, of 12 bytes each; with more different steps, a sample of the hashes gives an estimate."""
BLOCK_ROWS = 4096
WIDEST = np.dtype(np.longdouble).itemsize
"""The most bytes of a number."""


class Repeats:
    """Adds up repeated steps: exact up to `most` different ones, beyond from a share 2^-k of all hashes."""

    def __init__(self, width: int, most: int = MOST_HASHES):
        """**Arguments:** `width`, the numbers in a step; `most`, the number of hashes to keep."""
        self._weights = np.random.default_rng(0).integers(1, 2**63, WIDEST * width, np.uint64) | np.uint64(1)
        self._most, self._level, self._waiting = most, 0, 0
        self._parts: list[UInt64[np.ndarray, " steps"]] = []
        self._hashes, self._counts = np.zeros(0, np.uint64), np.zeros(0, np.int32)

    def add(
        self, observations: Shaped[np.ndarray, "steps observation"], actions: Shaped[np.ndarray, "steps action"]
    ) -> None:
        """Adds the steps of one episode."""
        for start in range(0, len(actions), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            hashes = self._hashed(observations[rows], actions[rows])
            chosen = hashes[self._is_kept(hashes)]
            self._parts.append(chosen)
            self._waiting += len(chosen)
        if self._waiting > self._most:
            self._merge()

    def count(self) -> int:
        """The number of steps that are those of an earlier step; an estimate if there were too many different ones."""
        self._merge()
        return int(self._counts.sum() - len(self._counts)) << self._level

    def _hashed(
        self, observations: Shaped[np.ndarray, "steps observation"], actions: Shaped[np.ndarray, "steps action"]
    ) -> UInt64[np.ndarray, " steps"]:
        """A hash of each step: a sum of its bytes with random odd weights, modulo 2^64."""
        parts = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in (observations, actions)]
        content = np.concatenate(parts, axis=1)
        mixed = (content.astype(np.uint64) + 1) * self._weights[: content.shape[1]]
        mixed ^= mixed >> np.uint64(29)
        return (mixed * np.uint64(0x9E3779B97F4A7C15)).sum(axis=1, dtype=np.uint64)

    def _is_kept(self, hashes: UInt64[np.ndarray, " steps"]) -> Shaped[np.ndarray, " steps"]:
        """Whether the first `level` bits of each hash are 0."""
        return hashes <= np.uint64((1 << (64 - self._level)) - 1)

    def _merge(self) -> None:
        """Counts the new hashes; halves the share that is kept while there are too many."""
        hashes = np.concatenate([self._hashes, *self._parts])
        counts = np.concatenate([self._counts, np.ones(len(hashes) - len(self._counts), np.int32)])
        order = np.argsort(hashes)
        hashes, counts = hashes[order], counts[order]
        first = np.flatnonzero(np.diff(hashes, prepend=~hashes[:1]))
        self._hashes = hashes[first]
        self._counts = np.add.reduceat(counts, first) if len(first) else counts
        self._parts, self._waiting = [], 0
        while len(self._hashes) > self._most:
            self._level += 1
            kept = self._is_kept(self._hashes)
            self._hashes, self._counts = self._hashes[kept], self._counts[kept]
