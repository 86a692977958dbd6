"""Loading OGBench's data sets, with small random files of the smallest environment."""

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ogbench
import pytest

from sorl.data import GeneratedSet, Task, load_ogbench, records
from sorl.data.mapped.npz_parts import map_set
from sorl.data.ogbench import load as room, splits
from sorl.data.transitions import Dataset, Window
from sorl.environments.simulators import quiet
from sorl.system.files import write_json
from tests.broken_npz import BROKEN


ENV = "pointmaze-medium-navigate-singletask-task1-v0"
DATASET = "pointmaze-medium-navigate-v0"
GOAL = np.array([20.0, 20.0])
"""Task 1 of the medium maze ends in cell (6, 6), 4 metres a cell from (-4, -4); its tolerance is 1 metre."""


def _rows(trajectories=2, length=6, seed=0):
    generator = np.random.default_rng(seed)
    position = generator.uniform(0, 20, (trajectories * length, 2)).astype(np.float32)
    position[2] = GOAL + 0.5
    return {
        "observations": position,
        "actions": generator.uniform(-1, 1, position.shape).astype(np.float32),
        "terminals": np.tile(np.arange(length) == length - 1, trajectories),
        "qpos": position,
        "qvel": np.zeros_like(position),
    }


def _save(directory, **changes):
    directory.mkdir(parents=True, exist_ok=True)
    rows = {key: array for key, array in {**_rows(), **changes}.items() if array is not None}
    np.savez(directory / f"{DATASET}.npz", **rows)
    np.savez(directory / f"{DATASET}-val.npz", **_rows(1, seed=1))
    return directory


@pytest.fixture(autouse=True)
def _no_home(monkeypatch, tmp_path):
    """Keeps tests from the user's own directories and from real hosts."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setattr(room, "OGBENCH_CACHE", tmp_path / "cache")
    monkeypatch.setattr(room, "OFFICIAL_HOST", "http://127.0.0.1:9")


def test_transitions_are_ogbenchs_own(tmp_path):
    data = load_ogbench(ENV, data_dir=_save(tmp_path / "own"))
    with quiet():
        loaded: Any = ogbench.make_env_and_datasets(ENV, dataset_dir=str(tmp_path / "own"))
    _, train, validation = loaded
    for ours, theirs in ((data.train, train), (data.validation, validation)):
        assert ours is not None
        batch = jax.jit(lambda ours: ours.take(jnp.arange(len(ours)), Window(), 1.0))(ours)
        limit = np.float32(1 - 1e-5)
        np.testing.assert_array_equal(batch.observation, theirs["observations"])
        np.testing.assert_array_equal(batch.action, np.clip(theirs["actions"], -limit, limit))
        np.testing.assert_array_equal(batch.next_observation, theirs["next_observations"])
        np.testing.assert_array_equal(batch.next_action, np.asarray(ours.actions)[np.asarray(ours.starts) + 1])
        np.testing.assert_array_equal(batch.reward, theirs["rewards"])
        np.testing.assert_array_equal(batch.discount, theirs["masks"])


def test_rows_are_judged_by_their_own_state(tmp_path):
    train = load_ogbench(ENV, data_dir=_save(tmp_path)).train
    assert train.starts.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert train.rewards.tolist() == [0.0 if row == 2 else -1.0 for row in range(12)]
    assert train.masks.tolist() == [0.0 if row == 2 else 1.0 for row in range(12)]


def test_extreme_actions_are_clipped(tmp_path):
    actions = np.ones((12, 2), np.float32)
    train = load_ogbench(ENV, data_dir=_save(tmp_path, actions=actions)).train
    assert np.unique(train.actions).tolist() == [np.float32(1 - 1e-5)]


def test_normalisation_changes_nothing(tmp_path):
    units = load_ogbench(ENV, data_dir=_save(tmp_path)).normalisation
    raw = jnp.array([3.0, -4.0])
    np.testing.assert_array_equal(units.observation(raw), raw)
    np.testing.assert_array_equal(units.environment_action(jnp.array([0.5, -1.0])), [0.5, -1.0])


def test_the_training_split_is_summarised(tmp_path):
    data = load_ogbench(ENV, data_dir=_save(tmp_path))
    found, own = data.provenance["summary"], data.provenance
    assert (found["episodes"], found["transitions"]) == (own["episodes"], own["transitions"])
    assert found["validation"] == {name: own["validation"][name] for name in ("episodes", "transitions")}
    assert "summary" not in own["validation"]
    assert found["reward_min"] == float(data.train.rewards.min())


def test_loading_leaves_numpys_generator_alone(tmp_path):
    _save(tmp_path)
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    load_ogbench(ENV, data_dir=tmp_path)
    assert np.random.rand() == expected


def test_a_users_directory_comes_before_the_cache(tmp_path):
    cache = _save(tmp_path / "cache")
    assert load_ogbench(ENV).provenance["path"] == str(cache / f"{DATASET}.npz")
    assert load_ogbench(ENV, data_dir=tmp_path / "own").provenance["path"] == str(cache / f"{DATASET}.npz")
    own = _save(tmp_path / "own")
    assert load_ogbench(ENV, data_dir=own).provenance["path"] == str(own / f"{DATASET}.npz")


def test_a_generated_set_is_used_only_when_asked_for(tmp_path):
    wanted = GeneratedSet(DATASET, 2)
    _save(wanted.directory)
    with pytest.raises(FileNotFoundError):
        load_ogbench(ENV, download=False)
    assert load_ogbench(ENV, generated=wanted).provenance["path"] == str(wanted.directory / f"{DATASET}.npz")
    _save(tmp_path / "cache")
    with pytest.raises(
        FileNotFoundError, match=f"3 generated episodes is not in .*`python -m sorl.generate {DATASET} --episodes 3`"
    ):
        load_ogbench(ENV, generated=GeneratedSet(DATASET, 3))


def test_provenance_tells_file_and_source(tmp_path):
    path = _save(tmp_path) / f"{DATASET}.npz"
    provenance = load_ogbench(ENV, data_dir=tmp_path).provenance
    assert (provenance["source"], provenance["episodes"], provenance["transitions"]) == ("unrecorded", 2, 10)
    assert (provenance["size"], len(provenance["sha256"])) == (path.stat().st_size, 64)
    assert (provenance["validation"]["episodes"], provenance["validation"]["transitions"]) == (1, 5)
    write_json(records.record_path(path), {**records.fingerprint(path), "source": "generated", "seed": 3})
    recorded = load_ogbench(ENV, data_dir=tmp_path).provenance
    assert (recorded["source"], recorded["seed"]) == ("generated", 3)
    assert json.loads(json.dumps(recorded)) == recorded


def test_sparse_rewards_are_recorded_and_leave_masks_alone(tmp_path, monkeypatch):
    _save(tmp_path)
    dense = load_ogbench(ENV, data_dir=tmp_path)
    assert "sparse_rewards" not in dense.provenance

    def several_subgoals(name, environment, rows):
        rows["rewards"] = np.resize([-3.0, -1.0, 0.0, -2.0], len(rows["actions"]))
        rows["masks"] = np.resize([1.0, 1.0, 0.0, 1.0], len(rows["actions"]))

    monkeypatch.setattr("ogbench.relabel_utils.relabel_dataset", several_subgoals)
    sparse = load_ogbench(ENV, data_dir=tmp_path, sparse_rewards=True)
    for split in (sparse.train, sparse.validation):
        np.testing.assert_array_equal(split.rewards, np.resize([-1.0, -1.0, 0.0, -1.0], len(split.rewards)))
        np.testing.assert_array_equal(split.masks, np.resize([1.0, 1.0, 0.0, 1.0], len(split.rewards)))
    assert sparse.provenance["sparse_rewards"] and sparse.provenance["validation"]["sparse_rewards"]
    assert sparse.provenance["summary"]["reward_min"] == -1.0
    assert sparse.provenance["sha256"] == dense.provenance["sha256"]


def test_a_changed_file_is_refused(tmp_path):
    path = _save(tmp_path) / f"{DATASET}.npz"
    write_json(records.record_path(path), {**records.fingerprint(path), "source": "official"})
    _save(tmp_path, actions=np.zeros((12, 2), np.float32))
    with pytest.raises(ValueError, match="was changed or damaged"):
        load_ogbench(ENV, data_dir=tmp_path)


def test_without_network_every_way_out_is_named(tmp_path):
    generating = f"generate it with `python -m sorl.generate {DATASET} --episodes 1000` and add --data.episodes 1000"
    naming = "name the directory that holds it with --data-dir"
    hosting = "name a host to download it from with --data.mirrors"
    with pytest.raises(ConnectionError) as caught:
        load_ogbench(ENV, data_dir=tmp_path, mirrors=["http://127.0.0.1:9/mirror"])
    said = f"http://127.0.0.1:9/mirror/{DATASET}.npz: Connection refused); {generating}, {naming}, or {hosting}."
    assert str(caught.value).endswith(said) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        load_ogbench(ENV, download=False)
    said = f"and may not be downloaded; {generating}, {naming}, or allow it with --data.download."
    assert str(caught.value).endswith(said)
    with pytest.raises(ConnectionError) as caught:
        load_ogbench("antmaze-giant-navigate-singletask-task1-v0")
    assert str(caught.value).endswith(f"Connection refused); {naming}, or {hosting}.")


def test_without_a_home_the_options_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user has none
    monkeypatch.setattr(room, "OGBENCH_CACHE", pathlib.Path("~/.ogbench/data"))
    monkeypatch.delenv("XDG_DATA_HOME")
    with pytest.raises(FileNotFoundError, match="needs a home directory[^\n]*; set HOME, or give --data-dir.$"):
        load_ogbench(ENV)
    with pytest.raises(FileNotFoundError, match="[^\n]*; set HOME or XDG_DATA_HOME, or give --out.$"):
        load_ogbench(ENV, generated=GeneratedSet(DATASET, 2))
    assert len(load_ogbench(ENV, data_dir=_save(tmp_path)).train) == 10


@pytest.mark.parametrize("case", ["flipped bytes in a deflated stream", "truncated after a half", "objects"])
def test_a_broken_file_is_one_sentence(tmp_path, case):
    path = _save(tmp_path) / f"{DATASET}.npz"
    path.write_bytes(BROKEN[case])
    with pytest.raises(ValueError, match=rf"^[^\n]*{path}[^\n]*\.$"):
        load_ogbench(ENV, data_dir=tmp_path)


def test_what_is_missing_is_downloaded_from_a_mirror(tmp_path):
    mirror = _save(tmp_path / "mirror")
    data = load_ogbench(ENV, mirrors=[mirror.as_uri()])
    assert data.provenance["source"] == data.provenance["validation"]["source"] == "mirror"
    assert data.provenance["url"] == f"{mirror.as_uri()}/{DATASET}.npz"
    assert pathlib.Path(data.provenance["path"]).parent == tmp_path / "cache"
    own = load_ogbench(ENV, data_dir=tmp_path / "own", mirrors=[mirror.as_uri()], download=False)
    assert pathlib.Path(own.provenance["path"]).parent == tmp_path / "cache"


def test_an_unknown_environment_is_refused():
    with pytest.raises(ValueError, match=f"nearest known names are .*{ENV}"):
        load_ogbench("pointmaze-medium-navigate-singletask-task-v0")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"qpos": None}, "lacks qpos: it holds observations, actions, terminals, qvel"),
        (
            {"actions": np.full((12, 2), 1.5)},
            r"leave \[-1, 1\] in row 0: column 0 is 1.5, and no action scale is stored",
        ),
        ({"actions": np.zeros((12, 5))}, "actions of .* have size 5, but the environment's have 2"),
        ({"observations": np.zeros((12, 28))}, "observations of .* have size 28, but the environment's have 2"),
        ({"observations": np.zeros((12, 64, 64, 3), np.uint8)}, r"has shape \[12, 64, 64, 3\]; give \[rows, size\]"),
        ({"terminals": np.zeros(12, bool)}, "row 11 is the last and not marked as an end"),
        ({"qpos": np.full((12, 2), np.nan)}, "qpos of .* is not finite in row 0"),
        ({"qpos": np.zeros((12, 3))}, "qpos of .* have size 3, but the environment's have 2"),
        ({"terminals": np.ones(12, bool)}, "holds no transition"),
    ],
)
def test_bad_data_are_refused(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_ogbench(ENV, data_dir=_save(tmp_path, **changes))


def test_states_of_buttons_are_needed_where_there_are_buttons():
    with room._single_task_environment(Task.parse("puzzle-3x3-play-singletask-task1-v0")) as environment:
        assert splits._sizes(environment) == {"observations": 55, "actions": 5, "qpos": 23, "button_states": 9}
    with room._single_task_environment(Task.parse("cube-double-play-singletask-task1-v0")) as environment:
        assert splits._sizes(environment) == {"observations": 37, "actions": 5, "qpos": 28}


@pytest.fixture
def mapped(tmp_path):
    """The set of `_save` as data directories, and as npz files elsewhere."""
    _save(tmp_path / "files")
    map_set(tmp_path / "files" / f"{DATASET}.npz", tmp_path / DATASET)
    return tmp_path / "files", tmp_path


def test_data_directories_are_what_their_files_are(mapped):
    files, directories = mapped
    gather = jax.jit(Dataset.gather, static_argnums=2)
    expected = load_ogbench(ENV, data_dir=files)
    device, host, disk = (
        load_ogbench(ENV, data_dir=directories, residence=place) for place in ("device", "host", "disk")
    )
    for one, two in zip(jax.tree.leaves(expected.train), jax.tree.leaves(device.train), strict=True):
        np.testing.assert_array_equal(one, two)
    for data in (host, disk, load_ogbench(ENV, data_dir=files, residence="host")):
        np.testing.assert_array_equal(data.train.reward_limits(), expected.train.reward_limits())
        assert data.provenance["summary"] == expected.provenance["summary"]
        for known, own in ((expected.train, data.train), (expected.validation, data.validation)):
            assert known is not None and own is not None
            indices = np.arange(len(known), dtype=np.int32)
            for window in (Window(), Window(3, 2)):
                whole = gather(known, indices, window)
                for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(own.gather(indices, window)), strict=True):
                    np.testing.assert_array_equal(one, two)
    assert disk.residence.residence == "disk"
    assert disk.provenance["files"][0]["name"] == f"{DATASET}.npz"


def test_files_cannot_be_mapped(mapped):
    with pytest.raises(ValueError, match="residence is disk, but .*npz is no data directory"):
        load_ogbench(ENV, data_dir=mapped[0], residence="disk")


def test_many_parts_become_one_directory(tmp_path):
    """Public sets of 100 million transitions are directories of npz files, with held-out files among them."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _save(whole)
    parts.mkdir()
    rows = _rows()
    for number in range(2):
        np.savez(
            parts / f"set-{number:03}.npz", **{key: array[6 * number : 6 * number + 6] for key, array in rows.items()}
        )
        np.savez(parts / f"set-{number:03}-val.npz", **_rows(1, seed=1))
    made = map_set(parts, tmp_path / "mapped" / DATASET)
    assert [path.name for path in made] == [DATASET, f"{DATASET}-val"]
    expected = load_ogbench(ENV, data_dir=whole)
    found = load_ogbench(ENV, data_dir=tmp_path / "mapped")
    for one, two in zip(jax.tree.leaves(expected.train), jax.tree.leaves(found.train), strict=True):
        np.testing.assert_array_equal(one, two)
    assert found.validation is not None and len(found.validation) == 10
    assert [file["name"] for file in found.provenance["files"]] == ["set-000.npz", "set-001.npz"]


def test_a_part_that_ends_within_an_episode_is_refused(tmp_path):
    rows = {key: array[:9] for key, array in _rows().items()}
    np.savez(tmp_path / "set.npz", **rows)
    with pytest.raises(ValueError, match="The last trajectory of .*set.npz is not closed: row 8"):
        map_set(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="There is no npz file to train on at .*empty"):
        map_set(tmp_path / "empty", tmp_path / "out")
