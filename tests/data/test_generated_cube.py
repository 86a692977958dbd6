"""A generated set of cube-single is rewarded, stored and loaded as OGBench's own."""

import numpy as np
import pytest

from sorl.data import GeneratedSet, generate, load_ogbench

from .generated import arrays_of, as_ogbench_loads


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
    rows = arrays_of(cube_single / "cube-single-play-v0.npz")
    assert {key: (array.shape, array.dtype.name) for key, array in rows.items()} == {
        "observations": ((EPISODES * 1001, 28), "float32"),
        "actions": ((EPISODES * 1001, 5), "float32"),
        "terminals": ((EPISODES * 1001,), "bool"),
        "qpos": ((EPISODES * 1001, 21), "float32"),
        "qvel": ((EPISODES * 1001, 20), "float32"),
    }
    np.testing.assert_array_equal(np.flatnonzero(rows["terminals"]), 1001 * np.arange(1, EPISODES + 1) - 1)
    assert (rows["actions"].min(), rows["actions"].max()) == (-1.0, 1.0)
    assert len(arrays_of(cube_single / "cube-single-play-v0-val.npz")["actions"]) == EPISODES // 10 * 1001


@pytest.mark.slow
def test_cube_single_loads_as_ogbench_loads_it(cube_single):
    name = "cube-single-play-singletask-task2-v0"
    theirs, _ = as_ogbench_loads(name, cube_single)
    train = load_ogbench(name, data_dir=cube_single).train
    np.testing.assert_array_equal(train.observations[train.starts], theirs["observations"])
    np.testing.assert_array_equal(train.observations[train.starts + 1], theirs["next_observations"])
    np.testing.assert_array_equal(train.rewards[train.starts], theirs["rewards"])
    np.testing.assert_array_equal(train.masks[train.starts], theirs["masks"])
