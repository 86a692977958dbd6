import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import ogbench
import pytest

from sorl.data import GeneratedSet, generate, load_ogbench
from sorl.data.generation import generate as generation, manipulation, pointmaze
from sorl.data.generation.episodes import collect_episode, make_recipe_environment
from sorl.data.generation.recipes import RECIPES
from sorl.data.mapped.manifest import read_manifest
from sorl.data.mapped.reader import open_arrays
from sorl.environments.simulators import quiet


SMALL = GeneratedSet("pointmaze-medium-stitch-v0", 4, seed=3)


def _digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.npz"))}


def _arrays(path):
    with np.load(path) as file:
        return {key: file[key] for key in file}


def _as_ogbench_loads(name, directory) -> Any:
    with quiet():
        loaded: Any = ogbench.make_env_and_datasets(name, dataset_dir=str(directory))
    return loaded[1:]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return generate(SMALL, directory=tmp_path_factory.mktemp("small"), workers=1, progress=False)


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


def test_any_number_of_workers_writes_the_same_files(small, tmp_path):
    two = generate(SMALL, directory=tmp_path, workers=2, progress=False)
    assert _digests(two) == _digests(small)
    assert list(_digests(two)) == ["pointmaze-medium-stitch-v0-val.npz", "pointmaze-medium-stitch-v0.npz"]


def test_files_are_the_episodes_in_order(small):
    environment = make_recipe_environment(SMALL.recipe)
    train = _arrays(small / "pointmaze-medium-stitch-v0.npz")
    validation = _arrays(small / "pointmaze-medium-stitch-v0-val.npz")
    assert (len(train["actions"]), len(validation["actions"])) == (4 * 201, 201)
    for rows, episode in ((train, (0, 2)), (validation, (1, 0))):
        start = 201 * episode[1]
        for key, array in collect_episode(environment, SMALL.recipe, (3, *episode)).items():
            np.testing.assert_array_equal(rows[key][start : start + 201], array)


def test_a_longer_set_begins_with_the_shorter_ones_episodes(small, tmp_path):
    shorter = generate(dataclasses.replace(SMALL, episodes=2), directory=tmp_path, workers=1, progress=False)
    one, other = (_arrays(directory / "pointmaze-medium-stitch-v0.npz") for directory in (shorter, small))
    np.testing.assert_array_equal(one["actions"], other["actions"][: 2 * 201])


def test_the_record_tells_how_the_set_was_made(small):
    record = json.loads((small / "pointmaze-medium-stitch-v0.npz.json").read_text())
    assert {key: record[key] for key in ("source", "seed", "split", "episodes", "transitions")} == {
        "source": "generated",
        "seed": 3,
        "split": "train",
        "episodes": 4,
        "transitions": 800,
    }
    assert record["recipe"] == dataclasses.asdict(SMALL.recipe)
    assert record["versions"]["ogbench"].startswith("1.")
    assert record["sha256"] == _digests(small)["pointmaze-medium-stitch-v0.npz"]


def test_ogbench_loads_it(small):
    train, validation = _as_ogbench_loads("pointmaze-medium-stitch-singletask-task1-v0", small)
    assert (train["observations"].shape, validation["observations"].shape) == ((800, 2), (200, 2))
    assert set(np.unique(train["rewards"])) <= {-1.0, 0.0}


def test_a_set_that_is_there_is_left_alone(small, monkeypatch):
    monkeypatch.setattr(generation, "_collect", None)
    before = {path: path.stat().st_mtime_ns for path in small.iterdir() if path.suffix != ".lock"}
    assert generate(SMALL, directory=small) == small
    assert {path: path.stat().st_mtime_ns for path in small.iterdir() if path.suffix != ".lock"} == before


def test_another_set_of_that_name_is_refused(small):
    for other in (dataclasses.replace(SMALL, episodes=5), dataclasses.replace(SMALL, seed=0)):
        with pytest.raises(ValueError, match="exists already and was not made by the settings asked for"):
            generate(other, directory=small)


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="0 workers generate nothing; give at least 1"):
        generate(SMALL, directory=tmp_path, workers=0)


def test_a_dead_worker_is_reported_and_finished_episodes_kept(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="worker with process id .* ended with exit code 1; run the same command"):
        generate(SMALL, directory=tmp_path, workers=2, progress=False)
    assert not list(tmp_path.glob("*.npz"))
    monkeypatch.undo()
    assert _digests(generate(SMALL, directory=tmp_path, workers=2, progress=False)) == _digests(small)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The directory of a generation that was killed after its last episode."""
    directory = tmp_path_factory.mktemp("left")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "assemble", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(SMALL, directory=directory, workers=1, progress=False)
    assert len(_shards(directory)) == 5
    return directory


def _empty(path):
    np.savez(path, observations=np.zeros((0, 2), np.float32))


def _uneven(path):
    rows = _arrays(path)
    np.savez(path, **{**rows, "actions": rows["actions"][:-1]})


def _linked(path):
    path.rename(path.parents[1] / "moved.npz")
    path.symlink_to(path.parents[1] / "moved.npz")


@pytest.mark.parametrize(
    "broken",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes().replace(b"NUMPY", b"xxxxx", 1)),
        _empty,
        _uneven,
        _linked,
    ],
)
def test_a_damaged_episode_of_a_killed_run_is_removed(left, tmp_path, capfd, broken):
    path = tmp_path / "shards" / "split-0-episode-000000.npz"
    path.parent.mkdir()
    shutil.copy(sorted(_shards(left))[0], path)
    assert generation._is_collected(path)
    broken(path)
    assert not generation._is_collected(path)
    assert not path.is_symlink() and not path.exists()
    said = capfd.readouterr().err
    assert said.startswith(f"{path} is damaged (") and said.endswith("); its episode is collected again.\n")
    assert said.count("\n") == 1
    assert not generation._is_collected(path)


def test_damaged_episodes_are_collected_anew(left, small, tmp_path):
    shutil.copytree(left, tmp_path / "set")
    for path in sorted(_shards(tmp_path / "set"))[:2]:
        path.write_bytes(b"")
    assert _digests(generate(SMALL, directory=tmp_path / "set", workers=1, progress=False)) == _digests(small)


def test_a_link_in_the_place_of_the_shards_is_refused(tmp_path):
    folder = generation._shards_directory(SMALL, tmp_path)
    folder.rmdir()
    (tmp_path / "other").mkdir()
    folder.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=r"^[^\n]*\.parts is a link[^\n]*; remove it\.$"):
        generate(SMALL, directory=tmp_path, workers=1, progress=False)
    assert list((tmp_path / "other").iterdir()) == []


def test_a_foreign_file_of_that_name_is_not_overwritten(tmp_path):
    (tmp_path / f"{SMALL.dataset}.npz").write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists already and was not made by the settings asked for"):
        generate(SMALL, directory=tmp_path, workers=1, progress=False)
    assert (tmp_path / f"{SMALL.dataset}.npz").read_bytes() == b"mine"


def test_a_damaged_record_is_one_sentence(small, tmp_path):
    for path in small.glob("*.npz*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / f"{SMALL.dataset}.npz.json").write_text("{")
    with pytest.raises(
        ValueError, match=rf"^{tmp_path}/{SMALL.dataset}.npz.json is empty, damaged[^\n]*; delete it and"
    ):
        generate(SMALL, directory=tmp_path, workers=1, progress=False)


def test_a_set_that_is_there_is_found_in_a_directory_without_a_lock(small, tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "exclusive", None)  # as where nothing can be written
    assert generate(SMALL, directory=small) == small


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_time_out_must_be_positive(tmp_path, seconds):
    with pytest.raises(ValueError, match="time-out of a worker is .* s; give a number above 0"):
        generate(SMALL, directory=tmp_path, worker_timeout=seconds)


def test_a_full_disk_is_one_sentence_and_keeps_the_episodes(left, small, tmp_path):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    directory = tmp_path / "set"
    shutil.copytree(left, directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match=r"^[^\n]*val\.npz cannot be written: no space left[^\n]*; free some"):
            generate(SMALL, directory=directory, workers=1, progress=False)
    assert len(list(directory.glob(".*.parts/*"))) == len(_shards(directory)) == 5
    assert _digests(generate(SMALL, directory=directory, workers=1, progress=False)) == _digests(small)


def _start(directory):
    command = [sys.executable, "-m", "sorl.generate", SMALL.dataset, "--episodes", "4", "--seed", "3", "--workers", "1"]
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [*command, "--out", str(directory)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def _shards(directory):
    return {path: path.stat().st_mtime_ns for path in directory.glob(".*.parts/split-*.npz")}


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_from_its_finished_episodes(small, tmp_path, end):
    process = _start(tmp_path)
    while process.poll() is None and not _shards(tmp_path):
        time.sleep(0.001)
    process.send_signal(end)
    _, said = process.communicate()
    if end == signal.SIGINT and process.returncode:
        assert "the same command continues after the last finished episode" in said
    kept = {} if (tmp_path / f"{SMALL.dataset}.npz").exists() else _shards(tmp_path)

    seen = {}
    assemble = generation.assemble

    def look(wanted, directory, shards, settings, form):
        seen.update(_shards(directory))
        assemble(wanted, directory, shards, settings, form)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "assemble", look)
        generate(SMALL, directory=tmp_path, workers=1, progress=False)
    assert _digests(tmp_path) == _digests(small)
    assert kept.items() <= seen.items()
    assert not list(tmp_path.glob(".*.parts"))


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


EPISODES = 12


@pytest.fixture(scope="module")
def cube_single(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cube")
    return generate(GeneratedSet("cube-single-play-v0", EPISODES), directory=directory, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "percent"), [(1, 2.40), (2, 2.30), (3, 2.15), (4, 1.85), (5, 2.83)])
def test_cube_single_is_rewarded_as_often_as_ogbenchs(cube_single, task, percent):
    """The reference is from 100 episodes of OGBench's own script; the tolerance covers the scatter of both samples."""
    train = load_ogbench(f"cube-single-play-singletask-task{task}-v0", data_dir=cube_single).train
    rewarded = 100 * (np.asarray(train.rewards[train.starts]) == 0).reshape(EPISODES, 1000).mean(axis=1)
    generator = np.random.default_rng(0)
    ours, theirs = (rewarded[generator.integers(EPISODES, size=(10_000, n))].mean(axis=1) for n in (EPISODES, 100))
    low, high = np.quantile(ours - theirs, [0.005, 0.995])
    assert low <= rewarded.mean() - percent <= high


@pytest.mark.slow
def test_cube_single_has_ogbenchs_form(cube_single):
    rows = _arrays(cube_single / "cube-single-play-v0.npz")
    assert {key: (array.shape, array.dtype.name) for key, array in rows.items()} == {
        "observations": ((EPISODES * 1001, 28), "float32"),
        "actions": ((EPISODES * 1001, 5), "float32"),
        "terminals": ((EPISODES * 1001,), "bool"),
        "qpos": ((EPISODES * 1001, 21), "float32"),
        "qvel": ((EPISODES * 1001, 20), "float32"),
    }
    np.testing.assert_array_equal(np.flatnonzero(rows["terminals"]), 1001 * np.arange(1, EPISODES + 1) - 1)
    assert (rows["actions"].min(), rows["actions"].max()) == (-1.0, 1.0)
    assert len(_arrays(cube_single / "cube-single-play-v0-val.npz")["actions"]) == EPISODES // 10 * 1001


@pytest.mark.slow
def test_cube_single_loads_as_ogbench_loads_it(cube_single):
    name = "cube-single-play-singletask-task2-v0"
    theirs, _ = _as_ogbench_loads(name, cube_single)
    train = load_ogbench(name, data_dir=cube_single).train
    np.testing.assert_array_equal(train.observations[train.starts], theirs["observations"])
    np.testing.assert_array_equal(train.observations[train.starts + 1], theirs["next_observations"])
    np.testing.assert_array_equal(train.rewards[train.starts], theirs["rewards"])
    np.testing.assert_array_equal(train.masks[train.starts], theirs["masks"])


def test_data_directories_hold_the_same_episodes(small, tmp_path):
    """Both those made of collected episodes, and those made of npz files that exist already."""
    collected = generate(SMALL, directory=tmp_path / "a", workers=1, progress=False, form="mapped")
    of_files = generate(SMALL, directory=shutil.copytree(small, tmp_path / "b"), progress=False, form="mapped")
    for directory in (collected, of_files):
        for split in ("", "-val"):
            expected = _arrays(small / f"{SMALL.dataset}{split}.npz")
            path = directory / f"{SMALL.dataset}{split}"
            manifest, arrays = open_arrays(path)
            assert expected.keys() - arrays.keys() == {"terminals"}
            for name in expected.keys() & arrays.keys():
                np.testing.assert_array_equal(arrays[name], expected[name])
            ends = np.flatnonzero(expected["terminals"]) + 1
            assert np.cumsum(arrays["episode_lengths"]).tolist() == ends.tolist()
            assert (manifest.provenance["source"], manifest.provenance["seed"]) == ("generated", 3)
    manifests = [read_manifest(directory / SMALL.dataset) for directory in (collected, of_files)]
    assert manifests[0].sha256 == manifests[1].sha256
    # What exists is left alone, unless it is of other settings.
    generate(SMALL, directory=collected, form="mapped")
    with pytest.raises(ValueError, match="exists already and was not made by the settings"):
        generate(dataclasses.replace(SMALL, seed=4), directory=collected, form="mapped")
