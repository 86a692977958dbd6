"""OGBench's environments, in this process; an episode's seed alone decides it.

Worker processes import this module, so it must not import jax.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, SupportsIndex

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from sorl.environments.names import Task
from sorl.environments.simulators import make_environment


SuccessTiming = Literal["pre", "post"]
"""Whether reward and success are judged on the state before a step, as OGBench does since 1.2, or on the one after."""

IMAGE_SIZE = 320
"""Height and width of rendered images, in pixels."""


class Outcome(NamedTuple):
    """What one step did in several environments, one row each."""

    observations: Float[np.ndarray, "slots observation"]
    rewards: Float[np.ndarray, " slots"]
    success: Bool[np.ndarray, " slots"]
    done: Bool[np.ndarray, " slots"]
    """The episode terminated, or reached the environment's limit of steps."""

    @classmethod
    def of(cls, rows: Sequence[tuple[np.ndarray, float, bool, bool]]) -> "Outcome":
        """The rows that `Environment.step` returned, at least one."""
        return cls(*(np.stack(column) for column in zip(*rows, strict=True)))


class Environment:
    """One of OGBench's single-task environments, whose episodes depend on their seed and the actions, nothing else.

    OGBench draws from three generators, in `step` too: the environment's, the action space's and numpy's global one.
    While the environment works, the last is replaced by the episode's own; this is not for two threads at once.
    """

    def __init__(self, env_name: str, success_timing: SuccessTiming):
        """**Arguments:** `env_name`, such as `cube-single-play-singletask-task1-v0`; `success_timing`."""
        self._generator = np.random.MT19937(0)
        with self._global_generator():
            self._environment = make_environment(
                Task.parse(env_name).gymnasium_id, success_timing=success_timing, width=IMAGE_SIZE, height=IMAGE_SIZE
            )
            self._action_space = self._environment.unwrapped.action_space
            self._observation_size = int(np.prod(self._environment.observation_space.shape))

    def sizes(self) -> tuple[int, int]:
        """Sizes of an observation and of an action."""
        return self._observation_size, int(np.prod(self._action_space.shape))

    def reset(self, seed: int) -> Float[np.ndarray, " observation"]:
        """Starts the episode that `seed` >= 0 decides."""
        words = np.random.SeedSequence(seed).generate_state(3)
        self._generator = np.random.MT19937(words[0])
        self._action_space.seed(int(words[1]))
        with self._global_generator():
            observation, _ = self._environment.reset(seed=int(words[2]))
        return np.asarray(observation, np.float64)

    def step(self, action: Float[np.ndarray, " action"]) -> tuple[np.ndarray, float, bool, bool]:
        """Takes one step; an episode that is done must be reset before the next. **Returns:** a row of `Outcome`."""
        with self._global_generator():
            observation, reward, terminated, truncated, info = self._environment.step(action)
        return np.asarray(observation, np.float64), float(reward), bool(info["success"]), bool(terminated or truncated)

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """A picture of the present state; needs an off-screen renderer (MUJOCO_GL)."""
        return self._environment.unwrapped.render()

    @contextlib.contextmanager
    def _global_generator(self) -> Iterator[None]:
        """Swaps the generator behind `np.random` (half a microsecond; saving and setting its state takes 180)."""
        outer = get_bit_generator()
        set_bit_generator(self._generator)
        try:
            yield
        finally:
            set_bit_generator(outer)


class SerialEnvironments:
    """Environments in this process, numbered from 0 ("slots") and made when first used."""

    def __init__(self, env_name: str, *, environments: int = 1, success_timing: SuccessTiming = "pre"):
        """**Arguments:** `env_name`, OGBench's name of a single-task problem; `environments`, how many play side by
        side; `success_timing`.

        Raises a `ValueError` for an unknown name or a count below 1.
        """
        refuse_unplayable(env_name, environments)
        self.env_name = env_name
        self.success_timing: SuccessTiming = success_timing
        self._slots: list[Environment | None] = [None] * environments
        self._under_way: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """How many episodes can be played side by side."""
        return len(self._slots)

    def sizes(self) -> tuple[int, int]:
        """Sizes of an observation and of an action."""
        return self[0].sizes()

    def reset(
        self, slots: Int[np.ndarray, " slots"], seeds: Int[np.ndarray, " slots"]
    ) -> Float[np.ndarray, "slots observation"]:
        """Starts in each of `slots` the episode of its seed."""
        return np.stack([self[slot].reset(int(seed)) for slot, seed in zip(slots, seeds, strict=True)])

    def step_async(self, slots: Int[np.ndarray, " slots"], actions: Float[np.ndarray, "slots action"]) -> None:
        """Begins a step in each of `slots`, where none is under way; an episode that is done must be reset before."""
        self._under_way |= zip(slots.tolist(), actions, strict=True)

    def step_wait(self, least: int) -> tuple[Int[np.ndarray, " done"], Outcome]:
        """Waits for at least `least` of the steps under way. **Returns:** the slots that are done, and their rows."""
        slots = list(self._under_way)
        rows = [self[slot].step(self._under_way.pop(slot)) for slot in slots]
        return np.array(slots), Outcome.of(rows)

    def abandon(self) -> None:
        """Drops the results of the steps under way; their episodes must be reset."""
        self._under_way.clear()

    def close(self, patience: float = 0.0) -> None:
        """Does nothing, because there are no processes to end."""

    def kill(self) -> None:
        """Does nothing, because there are no processes to end."""

    def __getitem__(self, slot: SupportsIndex) -> Environment:
        """The environment in a slot."""
        environment = self._slots[slot] or Environment(self.env_name, self.success_timing)
        self._slots[slot] = environment
        return environment


def refuse_unplayable(env_name: str, environments: int) -> None:
    """Raises a `ValueError`, one sentence, for an unknown name or a count of environments below 1."""
    Task.parse(env_name)
    if environments < 1:
        raise ValueError(f"{environments} environments cannot play; give at least 1.")
