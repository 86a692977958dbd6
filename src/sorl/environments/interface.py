"""What an environment is: the protocol that OGBench's and Gymnasium's implement, and what a step in several gives.

Worker processes import this module, so it must not import jax.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8


SuccessTiming = Literal["pre", "post"]
"""State that OGBench judges reward and success on: the one before a step, as since its version 1.2, or the one after
it."""

Step = tuple[Float[np.ndarray, " observation"], float, bool | None, bool]
"""Observation, reward, success (None: the environment did not report one), and whether the episode is done."""


@runtime_checkable
class Environment(Protocol):
    """One environment, whose episodes depend on their seed and on the actions, and on nothing else."""

    def sizes(self) -> tuple[int, int]:
        """Sizes of an observation and of an action."""
        ...

    def action_range(self) -> tuple[Float[np.ndarray, " action"], Float[np.ndarray, " action"]]:
        """The lowest and the highest action that the environment accepts; may be infinite."""
        ...

    def reset(self, seed: int) -> Float[np.ndarray, " observation"]:
        """Starts the episode that `seed` >= 0 decides. **Returns:** the first observation, in double precision."""
        ...

    def step(self, action: Float[np.ndarray, " action"]) -> Step:
        """Takes one step; an episode that is done must be reset before the next."""
        ...

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """A picture of the present state."""
        ...


class Outcome(NamedTuple):
    """What one step did in several environments, one row each."""

    observations: Float[np.ndarray, "slots observation"]
    rewards: Float[np.ndarray, " slots"]
    success: Bool[np.ndarray, " slots"]
    """False where none was reported."""
    has_success: Bool[np.ndarray, " slots"]
    """Whether the environment reported a success, True or False, at this step."""
    done: Bool[np.ndarray, " slots"]
    """The episode terminated, or reached the environment's limit of steps."""

    @classmethod
    def of(cls, steps: Sequence[Step]) -> "Outcome":
        """What `Environment.step` returned, at least one."""
        observations, rewards, success, done = zip(*steps, strict=True)
        return cls(
            observations=np.stack(observations),
            rewards=np.array(rewards),
            success=np.array([bool(one) for one in success]),
            has_success=np.array([one is not None for one in success]),
            done=np.array(done),
        )
