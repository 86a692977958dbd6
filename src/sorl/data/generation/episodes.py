"""Collects one episode of a generated data set, from a seed that determines everything random in it."""

from typing import Any

import numpy as np

from sorl.data.generation import manipulation, pointmaze
from sorl.data.generation.recipes import Recipe
from sorl.environments.simulators import make_environment


Episode = dict[str, np.ndarray]
"""OGBench's arrays by key, [steps, ...]."""

DTYPES = {
    "observations": np.float32,
    "actions": np.float32,
    "terminals": np.bool_,
    "qpos": np.float32,
    "qvel": np.float32,
    "button_states": np.int64,
}
"""Keys and dtypes of OGBench's files; only environments with buttons have `button_states`."""


def make_recipe_environment(recipe: Recipe) -> Any:
    """OGBench's environment with the settings of its data generation, truncated after `recipe.steps` steps."""
    settings = {} if recipe.kind in pointmaze.KINDS else {"mode": "data_collection"}
    return make_environment(recipe.environment, terminate_at_goal=False, max_episode_steps=recipe.steps, **settings)


def collect_episode(environment: Any, recipe: Recipe, seed: tuple[int, ...]) -> Episode:
    """Collects one episode, which depends only on `seed` and not on earlier use of the environment.

    OGBench draws from three generators: numpy's global one, the environment's own, and the action space's. This seeds
    all three, and does not restore the global one.

    **Returns:** OGBench's arrays by key, with the dtypes of its files and one row per step; the last row is marked
    terminal.
    """
    words = np.random.SeedSequence(seed).generate_state(6)
    np.random.seed(words[:4])
    action_space = environment.unwrapped.action_space
    action_space.seed(int(words[4]))
    room = pointmaze if recipe.kind in pointmaze.KINDS else manipulation
    rows = room.collect(environment, recipe, action_space, reset_seed=int(words[5]))
    return {key: np.asarray(values, dtype=DTYPES[key]) for key, values in rows.items()}
