"""Episodes depend on their seed alone and go where their task says."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from sorl.data.generation import manipulation, pointmaze
from sorl.data.generation.episodes import collect_episode, make_recipe_environment
from sorl.data.generation.recipes import RECIPES


@pytest.mark.parametrize(
    ("name", "observation", "button_states"),
    [
        ("cube-double-noisy-v0", 37, None),
        ("scene-play-v0", 40, 2),
        ("puzzle-3x3-noisy-v0", 55, 9),
        ("pointmaze-teleport-navigate-v0", 2, None),
    ],
)
def test_an_episode_depends_on_its_seed_alone(name, observation, button_states):
    recipe = dataclasses.replace(RECIPES[name], steps=60)
    environment = make_recipe_environment(recipe)
    first = collect_episode(environment, recipe, (0, 0, 1))
    other = collect_episode(environment, recipe, (0, 0, 2))
    again = collect_episode(environment, recipe, (0, 0, 1))
    fresh = collect_episode(make_recipe_environment(recipe), recipe, (0, 0, 2))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        np.testing.assert_array_equal(other[key], fresh[key])
    assert not np.array_equal(first["actions"], other["actions"])

    assert first["observations"].shape == (60, observation)
    assert first["terminals"].tolist() == [False] * 59 + [True]
    assert np.abs(first["actions"]).max() <= 1
    assert {key: array.dtype.name for key, array in first.items() if key != "button_states"} == {
        "observations": "float32",
        "actions": "float32",
        "terminals": "bool",
        "qpos": "float32",
        "qvel": "float32",
    }
    if button_states is None:
        assert "button_states" not in first
    else:
        assert (first["button_states"].shape, first["button_states"].dtype) == ((60, button_states), np.int64)


def test_rows_hold_the_state_that_the_action_was_taken_in():
    recipe = dataclasses.replace(RECIPES["pointmaze-medium-navigate-v0"], steps=50)
    episode = collect_episode(make_recipe_environment(recipe), recipe, (0,))
    np.testing.assert_array_equal(episode["observations"], episode["qpos"])
    moves = np.diff(episode["observations"], axis=0)
    np.testing.assert_allclose(moves, 0.2 * episode["actions"][:-1], atol=0.05)  # 0.2 m at most, but for the walls


def test_noisy_data_are_noisier_than_play_data():
    def smoothness(name):
        recipe = dataclasses.replace(RECIPES[name], steps=100)
        actions = collect_episode(make_recipe_environment(recipe), recipe, (1, 0, 0))["actions"]
        return np.abs(np.diff(actions[:, :2], axis=0)).mean()

    assert smoothness("cube-single-noisy-v0") > 1.5 * smoothness("cube-single-play-v0")


def test_scene_episodes_that_hide_the_cube_are_drawn_again():
    def qpos(x, y, z):
        row = np.zeros((3, 25))
        row[1, 14:17] = x, y, z
        return row

    assert not manipulation._hides_the_cube(qpos(0.4, 0.0, 0.02))
    assert manipulation._hides_the_cube(qpos(0.4, 0.29, 0.02))
    assert manipulation._hides_the_cube(qpos(0.4, -0.3, 0.02))
    assert not manipulation._hides_the_cube(qpos(0.4, -0.3, 0.07))  # lies in the drawer


def test_an_episode_drawn_again_differs_and_repeats(monkeypatch):
    recipe = dataclasses.replace(RECIPES["scene-noisy-v0"], steps=20)
    environment = make_recipe_environment(recipe)
    first = collect_episode(environment, recipe, (0,))

    def drawn_again():
        verdicts = iter([True, False])
        monkeypatch.setattr(manipulation, "_hides_the_cube", lambda qpos: next(verdicts))
        return collect_episode(environment, recipe, (0,))

    again = [drawn_again(), drawn_again()]
    assert len(again[0]["terminals"]) == 20
    assert not np.array_equal(again[0]["observations"], first["observations"])
    np.testing.assert_array_equal(again[0]["observations"], again[1]["observations"])


def test_stacking_is_drawn_in_the_range_of_the_number_of_cubes():
    def draws(name):
        return np.array([manipulation._stacking_probability(RECIPES[name]) for _ in range(300)])

    np.random.seed(0)
    for name, low, high in (("double", 0.0, 0.25), ("triple", 0.05, 0.35), ("quadruple", 0.1, 0.5)):
        found = draws(f"cube-{name}-play-v0")
        assert low <= found.min() < low + 0.01
        assert high - 0.01 < found.max() <= high
    assert set(draws("cube-single-play-v0")) == {0.0}
    assert set(draws("scene-play-v0")) == {0.5}


def test_goals_lie_off_hallways_and_stitch_goals_four_cells_away():
    maze = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    free = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2), (3, 3)]
    corners = [(1, 1), (1, 3), (3, 1), (3, 3)]
    assert [cell for cell in free if not pointmaze._is_hallway(maze, cell)] == corners
    assert pointmaze._cells_at(maze, (1, 1), 4) == [(3, 3)]
    assert sorted(pointmaze._cells_at(maze, (1, 1), 1)) == [(1, 2), (2, 1)]
    assert pointmaze._cells_at(maze, (1, 1), 5) == []


def _maze_episode(kind, monkeypatch):
    """An episode of full length, and the goals that were drawn for it."""
    drawn = []
    draw = pointmaze._draw
    monkeypatch.setattr(pointmaze, "_draw", lambda cells: drawn.append(draw(cells)) or drawn[-1])
    recipe = dataclasses.replace(RECIPES[f"pointmaze-medium-{kind}-v0"], steps=1001)
    environment = make_recipe_environment(recipe)
    episode = collect_episode(environment, recipe, (0,))
    return episode, [environment.unwrapped.ij_to_xy(cell) for cell in drawn[1:]]


def test_navigation_goes_from_goal_to_goal(monkeypatch):
    episode, goals = _maze_episode("navigate", monkeypatch)
    assert len(goals) > 5
    for goal in goals[:-1]:  # goals are reached within 1 metre, and put up to 1.5 metres off their cell's middle
        assert np.linalg.norm(episode["observations"] - goal, axis=1).min() < 2.5


def test_stitching_stays_at_its_one_goal(monkeypatch):
    episode, goals = _maze_episode("stitch", monkeypatch)
    assert len(goals) == 1
    assert np.linalg.norm(episode["observations"][-500:] - goals[0], axis=1).max() < 4


def test_workers_do_not_import_jax():
    program = (
        "import sys, dataclasses, sorl.data.generation.worker;"
        "from sorl.data.generation.episodes import collect_episode, make_recipe_environment;"
        "from sorl.data.generation.recipes import RECIPES;"
        "recipe = dataclasses.replace(RECIPES['pointmaze-medium-stitch-v0'], steps=3);"
        "collect_episode(make_recipe_environment(recipe), recipe, (0,));"
        "assert not {'jax', 'equinox'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
