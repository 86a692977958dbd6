"""Episodes of cube, scene and puzzle, played by OGBench's oracles with the settings of its generation script."""

from collections import defaultdict
from typing import Any

import numpy as np

from sorl.data.generation.recipes import Recipe


NOISE_SMOOTHING = 0.5
"""Width, in steps, of the filter that correlates the plan oracles' noise in time."""
SMALLEST_MOVE = 0.4
"""The smallest norm of the Markov oracles' relative moves."""
NOISE_OF_DIMENSION = (1.0, 1.0, 1.0, 3.0, 10.0)
"""Factor on the episode's noise for each action dimension (x, y, z, yaw, gripper) in `noisy` data."""
STACKING = {"single": (0.0, 0.0), "double": (0.0, 0.25), "triple": (0.05, 0.35), "quadruple": (0.1, 0.5)}
"""Range from which an episode's probability of stacking a cube on another is drawn, by the number of cubes."""
STACKING_ELSEWHERE = 0.5

Rows = dict[str, list[Any]]


def collect(environment: Any, recipe: Recipe, action_space: Any, *, reset_seed: int) -> Rows:
    """Collects one episode; in scene, collects another one whenever the cube left the area that goals can show."""
    rows = _roll_out(environment, recipe, action_space, reset_seed)
    while recipe.environment.startswith("scene") and _hides_the_cube(np.asarray(rows["qpos"])):
        rows = _roll_out(environment, recipe, action_space, None)
    return rows


def _roll_out(environment: Any, recipe: Recipe, action_space: Any, reset_seed: int | None) -> Rows:
    # The random draws come in the order of OGBench's script, on which the data depend.
    oracles = _oracles(environment, recipe)
    observation, info = environment.reset(seed=reset_seed)
    stacking = _stacking_probability(recipe)
    noise = np.random.uniform(0, recipe.action_noise) * np.array(NOISE_OF_DIMENSION) if recipe.kind == "noisy" else None
    oracle = oracles[info["privileged/target_task"]]
    oracle.reset(observation, info)

    rows: Rows = defaultdict(list)
    ended = False
    while not ended:
        # The action: sometimes random, else the oracle's, with noise in `noisy` data.
        if np.random.rand() < recipe.random_actions:
            action = action_space.sample()
        else:
            action = np.array(oracle.select_action(observation, info))
            if noise is not None:
                action = action + np.random.normal(0, noise, action.shape)
        action = np.clip(action, -1, 1)
        next_observation, _, terminated, truncated, info = environment.step(action)
        ended = terminated or truncated
        # The oracle has reached its target: draw a new one, which may be of another kind.
        if oracle.done:
            target_observation, target_info = environment.unwrapped.set_new_target(p_stack=stacking)
            oracle = oracles[target_info["privileged/target_task"]]
            oracle.reset(target_observation, target_info)
        _append(rows, observation, action, ended, info)
        observation = next_observation
    return rows


def _append(rows: Rows, observation: Any, action: Any, ended: bool, info: dict[str, Any]) -> None:
    rows["observations"].append(observation)
    rows["actions"].append(action)
    rows["terminals"].append(ended)
    rows["qpos"].append(info["prev_qpos"])
    rows["qvel"].append(info["prev_qvel"])
    if "prev_button_states" in info:
        rows["button_states"].append(info["prev_button_states"])


def _oracles(environment: Any, recipe: Recipe) -> dict[str, Any]:
    """The oracle of each kind of target; new ones for each episode, because they have state."""
    from ogbench.manipspace.oracles.markov import button_markov, cube_markov, drawer_markov, window_markov
    from ogbench.manipspace.oracles.plan import button_plan, cube_plan, drawer_plan, window_plan

    if recipe.kind == "play":
        settings = {"env": environment, "noise": recipe.action_noise, "noise_smoothing": NOISE_SMOOTHING}
        cube, button = cube_plan.CubePlanOracle, button_plan.ButtonPlanOracle
        drawer, window = drawer_plan.DrawerPlanOracle, window_plan.WindowPlanOracle
    else:
        settings = {"env": environment, "min_norm": SMALLEST_MOVE}
        cube, button = cube_markov.CubeMarkovOracle, button_markov.ButtonMarkovOracle
        drawer, window = drawer_markov.DrawerMarkovOracle, window_markov.WindowMarkovOracle

    if recipe.environment.startswith("cube"):
        return {"cube": cube(**settings)}
    if recipe.environment.startswith("puzzle"):
        return {"button": button(gripper_always_closed=True, **settings)}
    makers = {"cube": cube, "button": button, "drawer": drawer, "window": window}
    return {target: maker(**settings) for target, maker in makers.items()}


def _stacking_probability(recipe: Recipe) -> float:
    for cubes, (low, high) in STACKING.items():
        if cubes in recipe.environment:
            return np.random.uniform(low, high)
    return STACKING_ELSEWHERE


def _hides_the_cube(qpos: np.ndarray) -> bool:
    """Whether the scene's cube ever went too far right, or too far left without lying in the drawer."""
    y, z = qpos[:, 15], qpos[:, 16]
    too_far_right = y >= 0.29
    too_far_left = (y <= -0.3) & ((z < 0.06) | (z > 0.08))
    return bool(np.any(too_far_right | too_far_left))
