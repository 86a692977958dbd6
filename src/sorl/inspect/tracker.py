"""Statistics of columns in one pass over episodes, in double precision and constant memory."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from sorl.data.columns import Columns, is_constant


PERIODS = {"radians": 2 * np.pi, "degrees": 360.0}
"""The periods of angles, by unit."""
WRAP = 0.8
"""A step of at least this share of a period may be a wrap."""


class Tracker:
    """Statistics of the columns of one array, updated episode by episode."""

    def __init__(self, size: int):
        zeros = np.zeros(size)
        self._count = self._steps = self._seconds = 0
        self.dtype = np.dtype(np.float64)
        """The dtype of the first episode, than which no other is wider."""
        self._origin, self._mean, self._squares = zeros, zeros.copy(), zeros.copy()
        self.low, self.high = np.full(size, np.inf), np.full(size, -np.inf)
        self._at_low, self._at_high = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._step_sizes, self._step_squares, self._second_squares = zeros.copy(), zeros.copy(), zeros.copy()
        self.largest_step = zeros.copy()
        """The largest change in one step, in magnitude."""
        self.largest_step_at: list[str] = [""] * size
        """The place of the largest change."""
        self.wraps = {unit: np.zeros(size, np.int64) for unit in PERIODS}
        """Number of steps that look like an angle's wrap."""

    def add(self, values: Shaped[np.ndarray, "rows size"], place: str) -> None:
        """Adds the rows of one episode, in order; `place` names it."""
        if not self._count:
            self._origin, self.dtype = values[0].astype(np.float64), values.dtype
        values = values.astype(np.float64)
        self._add_limits(values)
        self._add_moments(values - self._origin)
        steps = np.diff(values, axis=0)
        if len(steps):
            self._add_steps(steps, place)

    def _add_limits(self, values: Float[np.ndarray, "rows size"]) -> None:
        for name, bounds, better in (("low", values.min(axis=0), np.less), ("high", values.max(axis=0), np.greater)):
            best, counts = getattr(self, name), getattr(self, f"_at_{name}")
            here = (values == bounds).sum(axis=0)
            new = better(bounds, best)
            counts[:] = np.where(new, here, counts + np.where(bounds == best, here, 0))
            best[:] = np.where(new, bounds, best)

    def _add_moments(self, values: Float[np.ndarray, "rows size"]) -> None:
        # Chan, Golub & LeVeque (1979): combine the means and sums of squares of two samples.
        own = values.mean(axis=0)
        total, step = self._count + len(values), own - self._mean
        self._squares += np.square(values - own).sum(axis=0) + step**2 * (self._count * len(values) / total)
        self._mean = self._mean + step * (len(values) / total)
        self._count = total

    def _add_steps(self, steps: Float[np.ndarray, "steps size"], place: str) -> None:
        size = np.abs(steps)
        self._steps += len(steps)
        self._step_sizes += size.sum(axis=0)
        self._step_squares += np.square(steps).sum(axis=0)
        second = np.diff(steps, axis=0)
        self._seconds += len(second)
        self._second_squares += np.square(second).sum(axis=0)
        largest = size.max(axis=0)
        for column in np.flatnonzero(largest > self.largest_step):
            self.largest_step_at[column] = f"step {int(size[:, column].argmax())} of {place}"
        self.largest_step = np.maximum(self.largest_step, largest)
        for unit, period in PERIODS.items():
            self.wraps[unit] += ((size >= WRAP * period) & (size <= 1.01 * period)).sum(axis=0)

    def columns(self) -> Columns:
        """Range, mean and deviation of each column, and whether it is constant."""
        deviation = np.sqrt(self._squares / max(self._count, 1))
        constant = is_constant(self.low, self.high, self.dtype)
        return Columns(self.low, self.high, self._origin + self._mean, deviation, constant)

    def at_limits(self) -> tuple[Float[np.ndarray, " size"], Float[np.ndarray, " size"]]:
        """The share of rows that equal the lowest and the highest value."""
        return self._at_low / max(self._count, 1), self._at_high / max(self._count, 1)

    def usual_step(self) -> Float[np.ndarray, " size"]:
        """The mean magnitude of the change in one step."""
        return self._step_sizes / max(self._steps, 1)

    def smoothness(self) -> Float[np.ndarray, " size"]:
        """The correlation of successive values: 1 for slow changes, 0 for independent values, below for alternation.

        It is 1 - (mean squared step) / (2 variance), von Neumann's ratio (1941).
        """
        variance = np.maximum(self._squares / max(self._count, 1), 1e-300)
        return 1 - self._step_squares / max(self._steps, 1) / (2 * variance)

    def noise(self) -> Float[np.ndarray, " size"]:
        """The deviation of white noise on a slow signal, sqrt(mean squared second difference / 6)."""
        return np.sqrt(self._second_squares / max(self._seconds, 1) / 6)

    def angles(self) -> list[str | None]:
        """The unit of each column that looks like an angle which wraps; None for the others."""
        span = self.high - self.low
        units: list[str | None] = [None] * len(span)
        for unit, period in PERIODS.items():
            found: Bool[np.ndarray, " size"] = (self.wraps[unit] > 0) & (span >= 0.9 * period) & (span <= 1.01 * period)
            units = [unit if one else before for one, before in zip(found, units, strict=True)]
        return units
