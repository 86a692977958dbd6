"""Smooths the actions of a control loop; a smoothed action is a weighted mean, so it stays within the limits."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Exponential:
    """An exponential moving average: a_t = weight * a_(t-1) + (1 - weight) * (the policy's action at t).

    The first action of an episode is the policy's own. It delays the reaction to an observation by about
    weight / (1 - weight) steps.
    """

    weight: float
    """Share of the previous action, in [0, 1)."""

    def __post_init__(self):
        if not 0 <= self.weight < 1:
            raise ValueError(f"The weight of the smoothing is {self.weight}; give a number from 0 to below 1.")

    def __call__(
        self, previous: Float[np.ndarray, "*batch action"] | None, action: Float[np.ndarray, "*batch action"]
    ) -> Float[np.ndarray, "*batch action"]:
        """The action to execute, given the one executed before (None at the start of an episode)."""
        if previous is None:
            return action
        # In double precision: in single precision the weights' sum is not exactly 1, which may exceed the limits.
        mean = self.weight * previous.astype(np.float64) + (1 - self.weight) * action.astype(np.float64)
        return mean.astype(action.dtype)


@dataclasses.dataclass(frozen=True)
class OverlapAveraging:
    """Averages action chunks that overlap: the policy decides at every step, not once for each chunk.

    The action of a step is the mean of what the last decisions gave for it, with weights exp(-decay * i), where i = 0
    is the oldest decision (the temporal ensemble of Zhao et al., "Learning Fine-Grained Bimanual Manipulation with
    Low-Cost Hardware", RSS 2023). It reacts at every step, and costs a decision at every step.
    """

    decay: float = 0.01
    """How much more the older decisions count; 0: all count the same."""

    def __post_init__(self):
        if not 0 <= self.decay < math.inf:
            raise ValueError(f"The decay of the smoothing is {self.decay}; give a finite number >= 0.")

    def __call__(self, actions: Sequence[Float[np.ndarray, "*batch action"]]) -> Float[np.ndarray, "*batch action"]:
        """The action to execute, given what the decisions gave for this step, the oldest first."""
        weights = np.exp(-self.decay * np.arange(len(actions)))
        mean = np.tensordot(weights / weights.sum(), np.stack(actions), 1)
        return mean.astype(actions[0].dtype)


Smoothing = Exponential | OverlapAveraging
"""How a runner smooths actions."""
