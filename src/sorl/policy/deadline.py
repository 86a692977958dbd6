"""The deadline of a control loop's decisions, counted from the moment an observation was taken."""

import math
import time
from collections.abc import Callable


class LateObservation(ValueError):
    """An observation is so old that its action would come after the deadline."""


class Deadline:
    """Refuses late observations, and counts the decisions that took too long."""

    def __init__(self, milliseconds: float, expected: float = 0.0, clock: Callable[[], float] = time.monotonic):
        if not 0 < milliseconds < math.inf:
            raise ValueError(f"The deadline is {milliseconds} ms; give a finite time above 0.")
        self.milliseconds = milliseconds
        """The time from an observation to its action, in milliseconds."""
        self.expected = expected
        """The measured latency of a decision in milliseconds; 0 if it is unknown."""
        self.missed = 0
        """Number of decisions whose action came after the deadline."""
        self.slowest = 0.0
        """The longest time from an observation to its action, in milliseconds."""
        self._clock = clock

    def begin(self, taken_at: float | None) -> float:
        """The time from which the deadline of a decision counts.

        **Arguments:** `taken_at`, when the observation was taken, in seconds of the clock; None: now.

        Raises a `LateObservation`, one sentence, if a decision on it would come too late, and a `ValueError` if it was
        taken in the future.
        """
        now = self._clock()
        if taken_at is None:
            return now
        age = 1000 * (now - taken_at)
        if not age >= 0:
            raise ValueError(
                f"The observation was taken at {taken_at!r}, which is not before now ({now!r}); give a reading of "
                "time.monotonic()."
            )
        if age + self.expected > self.milliseconds:
            raise LateObservation(
                f"The observation is {age:.3g} ms old and a decision takes {self.expected:.3g} ms, beyond the deadline "
                f"of {self.milliseconds:g} ms; hold or stop the robot, and act on a newer observation."
            )
        return taken_at

    def end(self, begin: float) -> None:
        """Counts a decision that has just ended."""
        took = 1000 * (self._clock() - begin)
        self.slowest = max(self.slowest, took)
        self.missed += took > self.milliseconds

    def report(self) -> str:
        """One sentence about the decisions that missed the deadline."""
        decisions = "decision" if self.missed == 1 else "decisions"
        return (
            f"{self.missed} {decisions} came after the deadline of {self.milliseconds:g} ms; the slowest took "
            f"{self.slowest:.3g} ms from observation to action."
        )
