"""Environments that importing this module registers: one with success, and some that cannot be played."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Reach(gymnasium.Env):
    """A point on a line, moved by the action to a goal that the seed decides; draws from every generator."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = Box(-np.inf, np.inf, (3,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode, self.action_space = render_mode, Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.place, self.taken = self.np_random.uniform(-1, 1), np.random.uniform(-1, 1), 0
        return self._seen(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"the action {action} of type {action.dtype} is outside")
        self.place, self.taken = self.place + 0.25 * float(action[0]), self.taken + 1
        distance = abs(self.goal - self.place)
        return self._seen(), -distance, False, False, {"success": distance < 0.2}

    def render(self):
        return np.full((4, 6, 3), 10 + 20 * self.taken, np.uint8)

    def _seen(self):
        return np.array([self.place, self.goal, self.action_space.sample()[0]], np.float32)


class OneStep(gymnasium.Env):
    """Ends at once; `spaces` and what it gives are the test's."""

    def __init__(self, observation=None, action=None, seen=(0.0,), reward=0.0, info=None, render_mode=None):
        self.observation_space = observation or Box(-1.0, 1.0, (1,), np.float64)
        self.action_space = action or Box(-1.0, 1.0, (1,), np.float32)
        self.seen, self.reward, self.info = seen, reward, info or {}

    def reset(self, *, seed=None, options=None):
        return np.zeros(1), {}

    def step(self, action):
        return np.array(self.seen), self.reward, True, False, self.info


def register(name: str, entry: Any = OneStep, steps: int | None = 5, **settings: Any) -> None:
    """Registers `{name}-v0`."""
    gymnasium.register(f"{name}-v0", entry, max_episode_steps=steps, kwargs=settings)


register("Reach", Reach, steps=8)
register("Endless", steps=None)
register("Robotics", info={"is_success": 1.0})
register("Empty", info={"success": None, "is_success": 1.0})
register("Plain")
register("Images", observation=Box(0, 255, (8, 8, 3), np.uint8))
register("Table", observation=Box(-1.0, 1.0, (2, 2), np.float64))
register("Counts", observation=Box(0, 9, (2,), np.int64))
register("Words", observation=Dict({"hand": Box(-1.0, 1.0, (2,)), "goal": Box(-1.0, 1.0, (2,))}))
register("Buttons", action=Discrete(3))
register("Levers", action=Box(-1.0, 1.0, (1, 2), np.float32))
register("Narrow", observation=Box(-1e9, 1e9, (3,), np.float64), action=Box(0.0, 9.0, (2,), np.float32))
register("Broken", seen=(np.nan,))
register("Ragged", seen=(0.0, 0.0))
register("Named", seen={"hand": 0.0})
register("Endlessly-Good", reward=np.inf)
register("Unpriced", reward="much")
register("Halfway", info={"success": 0.3})
register("Wordy", info={"success": "no"})
