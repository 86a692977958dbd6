"""Episodes of the point mazes: noisy actions along the shortest paths to random goals."""

from collections import defaultdict, deque
from typing import Any

import numpy as np

from sorl.data.generation.recipes import Recipe


KINDS = ("navigate", "stitch")
STITCH_DISTANCE = 4
"""Cells between start and goal in `stitch` data."""
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1))

Cell = tuple[int, int]


def collect(environment: Any, recipe: Recipe, action_space: Any, *, reset_seed: int) -> dict[str, list[Any]]:
    """Collects one episode: `navigate` draws a new goal at each goal reached, `stitch` keeps one nearby goal."""
    # Draw start and goal; the draws come in the order of OGBench's script, on which the data depend.
    maze = environment.unwrapped
    free = [(int(i), int(j)) for i, j in np.argwhere(maze.maze_map == 0)]
    goals = [cell for cell in free if not _is_hallway(maze.maze_map, cell)]
    start = _draw(free)
    if recipe.kind == "stitch":
        goal = _draw(_cells_at(maze.maze_map, start, STITCH_DISTANCE) or [start])
    else:
        goal = _draw(goals)
    task = {"init_ij": start, "goal_ij": goal}
    observation, _ = environment.reset(seed=reset_seed, options={"task_info": task})

    # Follow the shortest path with noisy actions until the episode is truncated.
    rows: dict[str, list[Any]] = defaultdict(list)
    ended = False
    while not ended:
        direction = _direction_to_goal(maze)
        action = np.clip(direction + np.random.normal(0, recipe.action_noise, direction.shape), -1, 1)
        next_observation, _, terminated, truncated, info = environment.step(action)
        ended = terminated or truncated
        if info["success"] and recipe.kind == "navigate":
            maze.set_goal(_draw(goals))
        rows["observations"].append(observation)
        rows["actions"].append(action)
        rows["terminals"].append(ended)
        rows["qpos"].append(info["prev_qpos"])
        rows["qvel"].append(info["prev_qvel"])
        observation = next_observation
    return rows


def _direction_to_goal(maze: Any) -> np.ndarray:
    """Unit vector towards the next cell of the shortest path."""
    subgoal, _ = maze.get_oracle_subgoal(maze.get_xy(), maze.cur_goal_xy)
    direction = subgoal - maze.get_xy()
    return direction / (np.linalg.norm(direction) + 1e-6)


def _is_hallway(maze_map: np.ndarray, cell: Cell) -> bool:
    """Whether a cell is a straight corridor: free on both sides along one axis, walled along the other."""
    i, j = cell
    vertical = maze_map[i - 1, j], maze_map[i + 1, j]
    horizontal = maze_map[i, j - 1], maze_map[i, j + 1]
    return (vertical, horizontal) in {((0, 0), (1, 1)), ((1, 1), (0, 0))}


def _cells_at(maze_map: np.ndarray, start: Cell, distance: int) -> list[Cell]:
    """The cells whose shortest path from `start` has `distance` moves."""
    moves = {start: 0}
    frontier = deque([start])
    while frontier:
        i, j = frontier.popleft()
        for cell in ((i + di, j + dj) for di, dj in NEIGHBOURS):
            if maze_map[cell] == 0 and cell not in moves:
                moves[cell] = moves[i, j] + 1
                frontier.append(cell)
    return [cell for cell, count in moves.items() if count == distance]


def _draw(cells: list[Cell]) -> Cell:
    return cells[np.random.randint(len(cells))]
