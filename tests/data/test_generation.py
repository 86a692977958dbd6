"""Sets are generated in order by any number of workers, continued after a stop, and never overwritten."""

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

import numpy as np
import pytest

from sorl.data import GeneratedSet, generate
from sorl.data.generation import generate as generation
from sorl.data.generation.episodes import collect_episode, make_recipe_environment
from sorl.data.mapped.manifest import read_manifest
from sorl.data.mapped.reader import open_arrays
from sorl.system.locks import exclusive

from .generated import arrays_of, as_ogbench_loads


SMALL = GeneratedSet("pointmaze-medium-stitch-v0", 4, seed=3)


def _digests(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.npz"))}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return generate(SMALL, directory=tmp_path_factory.mktemp("small"), workers=1, progress=False)


def test_any_number_of_workers_writes_the_same_files(small, tmp_path):
    two = generate(SMALL, directory=tmp_path, workers=2, progress=False)
    assert _digests(two) == _digests(small)
    assert list(_digests(two)) == ["pointmaze-medium-stitch-v0-val.npz", "pointmaze-medium-stitch-v0.npz"]


def test_files_are_the_episodes_in_order(small):
    environment = make_recipe_environment(SMALL.recipe)
    train = arrays_of(small / "pointmaze-medium-stitch-v0.npz")
    validation = arrays_of(small / "pointmaze-medium-stitch-v0-val.npz")
    assert (len(train["actions"]), len(validation["actions"])) == (4 * 201, 201)
    for rows, episode in ((train, (0, 2)), (validation, (1, 0))):
        start = 201 * episode[1]
        for key, array in collect_episode(environment, SMALL.recipe, (3, *episode)).items():
            np.testing.assert_array_equal(rows[key][start : start + 201], array)


def test_a_longer_set_begins_with_the_shorter_ones_episodes(small, tmp_path):
    shorter = generate(dataclasses.replace(SMALL, episodes=2), directory=tmp_path, workers=1, progress=False)
    one, other = (arrays_of(directory / "pointmaze-medium-stitch-v0.npz") for directory in (shorter, small))
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
    train, validation = as_ogbench_loads("pointmaze-medium-stitch-singletask-task1-v0", small)
    assert (train["observations"].shape, validation["observations"].shape) == ((800, 2), (200, 2))
    assert set(np.unique(train["rewards"])) <= {-1.0, 0.0}


def test_a_set_that_is_there_is_left_alone(small, monkeypatch):
    monkeypatch.setattr(generation, "_collect", None)
    before = {path: path.stat().st_mtime_ns for path in small.iterdir() if path.suffix != ".lock"}
    assert generate(SMALL, directory=small) == small
    assert {path: path.stat().st_mtime_ns for path in small.iterdir() if path.suffix != ".lock"} == before


def test_episodes_that_a_kill_left_beside_a_finished_set_are_removed_unless_they_are_in_use(small, tmp_path):
    directory = shutil.copytree(small, tmp_path / "set")
    folder = generation._shards_directory(SMALL, directory)
    folder.mkdir()
    with exclusive(directory / ".sorl.lock"):
        assert generate(SMALL, directory=directory) == directory
    assert folder.exists()
    assert generate(SMALL, directory=directory) == directory
    assert not folder.exists()


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
    assert _digests(generate(SMALL, directory=tmp_path, workers=1, progress=False)) == _digests(small)


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
    rows = arrays_of(path)
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


def test_data_directories_hold_the_same_episodes(small, tmp_path):
    """Both those made of collected episodes, and those made of npz files that exist already."""
    collected = generate(SMALL, directory=tmp_path / "a", workers=1, progress=False, form="mapped")
    of_files = generate(SMALL, directory=shutil.copytree(small, tmp_path / "b"), progress=False, form="mapped")
    for directory in (collected, of_files):
        for split in ("", "-val"):
            expected = arrays_of(small / f"{SMALL.dataset}{split}.npz")
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
