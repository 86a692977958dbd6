"""Several environments in this process, which step one after the other.

Worker processes import this file, so it must not import jax.
"""

from typing import SupportsIndex

import numpy as np
from jaxtyping import Float, Int

from sorl.environments.interface import Environment, Outcome, SuccessTiming
from sorl.environments.named import is_ogbench, named_environment, refuse_unplayable


class SerialEnvironments:
    """Environments in this process, numbered from 0 ("slots") and created when first used."""

    def __init__(
        self, env_name: str, *, environments: int = 1, success_timing: SuccessTiming = "pre", pictures: bool = False
    ):
        """**Arguments:** `env_name`, OGBench's name of a single-task problem or `MODULE:ID` of Gymnasium's;
        `environments`, the number of parallel episodes; `success_timing`, for OGBench; `pictures`, to render images.

        Raises a `ValueError` for an unknown name or a number below 1.
        """
        refuse_unplayable(env_name, environments, success_timing)
        self.env_name = env_name
        self.success_timing: SuccessTiming | None = success_timing if is_ogbench(env_name) else None
        """None if the environment judges success itself."""
        self._make = lambda: named_environment(env_name, success_timing, pictures=pictures)
        self._slots: list[Environment | None] = [None] * environments
        self._under_way: dict[int, np.ndarray] = {}

    in_this_process = True
    """Whether steps are simulated by this process, in `step_wait`."""

    def __len__(self) -> int:
        """The number of episodes that can be played in parallel."""
        return len(self._slots)

    def sizes(self) -> tuple[int, int]:
        """Sizes of an observation and of an action."""
        return self[0].sizes()

    def action_range(self) -> tuple[Float[np.ndarray, " action"], Float[np.ndarray, " action"]]:
        """The lowest and highest actions that the environments accept; they may be infinite."""
        return self[0].action_range()

    def reset(
        self, slots: Int[np.ndarray, " slots"], seeds: Int[np.ndarray, " slots"]
    ) -> Float[np.ndarray, "slots observation"]:
        """Starts an episode in each of `slots`, with its seed. **Returns:** the first observations."""
        return np.stack([self[slot].reset(int(seed)) for slot, seed in zip(slots, seeds, strict=True)])

    def step_async(self, slots: Int[np.ndarray, " slots"], actions: Float[np.ndarray, "slots action"]) -> None:
        """Starts a step in each of `slots`, which must be idle; an episode that is done must be reset first."""
        self._under_way |= zip(slots.tolist(), actions, strict=True)

    def step_wait(self, least: int) -> tuple[Int[np.ndarray, " done"], Outcome] | None:
        """Waits for at least `least` >= 1 of the pending steps.

        **Returns:** the finished slots and their outcomes; None if nothing is pending.
        """
        if not self._under_way:
            return None
        slots = list(self._under_way)
        steps = [self[slot].step(self._under_way.pop(slot)) for slot in slots]
        return np.array(slots), Outcome.of(steps)

    def wake(self) -> None:
        """Does nothing, because `step_wait` simulates instead of waiting."""

    def abandon(self) -> None:
        """Discards the results of the pending steps; their episodes must be reset."""
        self._under_way.clear()

    def close(self, patience: float = 0.0) -> None:
        """Does nothing, because there are no processes to end."""

    def kill(self) -> None:
        """Does nothing, because there are no processes to end."""

    def __getitem__(self, slot: SupportsIndex) -> Environment:
        """The environment in a slot."""
        environment = self._slots[slot] or self._make()
        self._slots[slot] = environment
        return environment
