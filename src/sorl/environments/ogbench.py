"""OGBench's environments in this process; an episode's initial state and randomness depend only on its seed.

Worker processes import this file, so it must not import jax.
"""

import numpy as np
from jaxtyping import Float, UInt8

from sorl.environments.generator import EpisodeGenerator
from sorl.environments.interface import Step, SuccessTiming
from sorl.environments.names import Task
from sorl.environments.simulators import make_environment


IMAGE_SIZE = 320
"""Height and width of rendered images, in pixels."""


class OgbenchEnvironment:
    """One of OGBench's single-task environments.

    OGBench draws from three generators, also in `step`: the environment's, the action space's and numpy's global one.
    While the environment's code runs, the last is replaced by the episode's own, so this class is not thread-safe.
    """

    def __init__(self, env_name: str, success_timing: SuccessTiming):
        """**Arguments:** `env_name`, such as `cube-single-play-singletask-task1-v0`; `success_timing`."""
        self._generator = EpisodeGenerator()
        with self._generator.in_place():
            self._environment = make_environment(
                Task.parse(env_name).gymnasium_id, success_timing=success_timing, width=IMAGE_SIZE, height=IMAGE_SIZE
            )
            self._action_space = self._environment.unwrapped.action_space
            self._observation_size = int(np.prod(self._environment.observation_space.shape))

    def sizes(self) -> tuple[int, int]:
        """As `Environment.sizes`."""
        return self._observation_size, int(np.prod(self._action_space.shape))

    def action_range(self) -> tuple[Float[np.ndarray, " action"], Float[np.ndarray, " action"]]:
        """As `Environment.action_range`: -1 and 1."""
        return self._action_space.low, self._action_space.high

    def reset(self, seed: int) -> Float[np.ndarray, " observation"]:
        """As `Environment.reset`."""
        words = np.random.SeedSequence(seed).generate_state(3)
        self._generator.seed(int(words[0]))
        self._action_space.seed(int(words[1]))
        with self._generator.in_place():
            observation, _ = self._environment.reset(seed=int(words[2]))
        return np.asarray(observation, np.float64)

    def step(self, action: Float[np.ndarray, " action"]) -> Step:
        """As `Environment.step`; success is always reported."""
        with self._generator.in_place():
            observation, reward, terminated, truncated, info = self._environment.step(action)
        return np.asarray(observation, np.float64), float(reward), bool(info["success"]), bool(terminated or truncated)

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """An image of the current state; needs an off-screen renderer (MUJOCO_GL)."""
        return self._environment.unwrapped.render()
