"""The trajectories of a data set, and the discounted returns along them, with what a time-out leaves unknown."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from sorl.data.returns import discounted_sums
from sorl.data.transitions import Dataset
from sorl.train.value_range import value_range


class Trajectories(NamedTuple):
    """The transitions of a data set in numpy, by trajectory: number i begins in row `starts[i]`."""

    starts: Int[np.ndarray, " transitions"]
    """The row of each transition."""
    first: Int[np.ndarray, " trajectories"]
    """The number of the first transition of each trajectory."""
    rewards: Float[np.ndarray, " transitions"]
    masks: Float[np.ndarray, " transitions"]

    @classmethod
    def of(cls, dataset: Dataset) -> "Trajectories":
        """The trajectories of a data set: a gap between the rows of two transitions ends one."""
        starts = np.asarray(dataset.starts)
        first = np.concatenate([[0], np.flatnonzero(np.diff(starts) != 1) + 1])
        return cls(starts, first, *(np.asarray(x, np.float64)[starts] for x in (dataset.rewards, dataset.masks)))

    @property
    def last(self) -> Int[np.ndarray, " trajectories"]:
        """The number of the last transition of each trajectory."""
        return np.append(self.first[1:], len(self.starts)) - 1

    @property
    def owner(self) -> Int[np.ndarray, " transitions"]:
        """The trajectory of each transition."""
        return np.repeat(np.arange(len(self.first)), self.last - self.first + 1)


class Returns(NamedTuple):
    """The discounted sum of the logged rewards from each transition on."""

    known: Float[np.ndarray, " transitions"]
    """The sum up to a termination, or up to the end of the log."""
    beyond: Float[np.ndarray, " transitions"]
    """The weight of the value of the state after the trajectory's last transition; 0 after a termination."""

    def filled(self, after: float | Shaped[np.ndarray, " transitions"]) -> Float[np.ndarray, " transitions"]:
        """The whole return, if `after` is the value of the state after the trajectory."""
        return self.known + self.beyond * after


def returns_to_go(trajectories: Trajectories, discount: float) -> Returns:
    """The return from each transition on; a termination ends it even if the log continues, a time-out does not.

    **Arguments:** `discount`, gamma per step.
    """
    discounts, lengths = discount * trajectories.masks, trajectories.last - trajectories.first + 1
    nothing = np.zeros(len(trajectories.starts))
    return Returns(
        known=discounted_sums(trajectories.rewards, discounts, trajectories.last, lengths),
        beyond=discounted_sums(nothing, discounts, trajectories.last, lengths, after=1.0),
    )


class ValueScale(NamedTuple):
    """The values to expect: a fitted critic learns (Q - centre) / scale, within limits."""

    centre: float
    scale: float
    low: float
    """The smallest discounted sum of rewards that the data allow."""
    high: float

    @property
    def limits(self) -> tuple[float | Float[Array, ""], float | Float[Array, ""]]:
        """The limits of (Q - centre) / scale."""
        return (self.low - self.centre) / self.scale, (self.high - self.centre) / self.scale


def value_scale(trajectories: Trajectories, discount: float) -> ValueScale:
    """Mean and deviation of the logged returns to go, and the limits of any return.

    After a time-out the mean reward is taken to go on for ever; it is only where a fit begins.
    """
    returns, rewards = returns_to_go(trajectories, discount), trajectories.rewards
    for_ever = rewards.mean() / (1 - discount) if discount < 1 else 0.0
    found = returns.filled(for_ever)
    # Rewards that vary by rounding only, or all zeros, still need a positive scale.
    scale, largest = float(found.std()), float(np.abs(found).max())
    scale = scale if scale > 1e-6 * largest else largest or 1.0
    allowed = value_range(rewards, discount)
    return ValueScale(float(found.mean()), scale, allowed.low, allowed.high)


def spread_out(count: int, most: int) -> Int[np.ndarray, " chosen"]:
    """At most `most` of the numbers 0 .. count - 1, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
