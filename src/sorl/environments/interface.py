"""The protocol that OGBench's and Gymnasium's environments implement, and the outcome of a step in several of them.

Worker processes import this file, so it must not import jax.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8


SuccessTiming = Literal["pre", "post"]
"""Whether OGBench judges reward and success on the state before a step (`pre`, since its version 1.2) or after it
(`post`)."""

Step = tuple[Float[np.ndarray, " observation"], float, bool | None, bool]
"""Observation, reward, success (None: the environment did not report one), and whether the episode is done."""


@runtime_checkable
class Environment(Protocol):
    """One environment, whose episodes depend only on their seed and the actions."""

    def sizes(self) -> tuple[int, int]:
        """Sizes of an observation and of an action."""
        ...

    def action_range(self) -> tuple[Float[np.ndarray, " action"], Float[np.ndarray, " action"]]:
        """The lowest and highest actions that the environment accepts; they may be infinite."""
        ...

    def reset(self, seed: int) -> Float[np.ndarray, " observation"]:
        """Starts the episode of `seed` >= 0. **Returns:** the first observation, in double precision."""
        ...

    def step(self, action: Float[np.ndarray, " action"]) -> Step:
        """Takes one step; after an episode is done, `reset` must be called first."""
        ...

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """An image of the current state."""
        ...


class Outcome(NamedTuple):
    """The outcome of one step in several environments, one row each."""

    observations: Float[np.ndarray, "slots observation"]
    rewards: Float[np.ndarray, " slots"]
    success: Bool[np.ndarray, " slots"]
    """The reported success; False if none was reported."""
    has_success: Bool[np.ndarray, " slots"]
    """Whether the environment reported a success, True or False, at this step."""
    done: Bool[np.ndarray, " slots"]
    """Whether the episode terminated or reached the environment's limit of steps."""

    @classmethod
    def of(cls, steps: Sequence[Step]) -> "Outcome":
        """Stacks the results of `Environment.step`, at least one."""
        observations, rewards, success, done = zip(*steps, strict=True)
        return cls(
            observations=np.stack(observations),
            rewards=np.array(rewards),
            success=np.array([bool(one) for one in success]),
            has_success=np.array([one is not None for one in success]),
            done=np.array(done),
        )
