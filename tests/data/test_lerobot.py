import json

import numpy as np
import pytest

from sorl.data.lerobot.source import LeRobot
from sorl.data.recorded import checks
from sorl.data.sources import user_source

from .. import recorded_files


pytest.importorskip("pyarrow")
REWARDS = [np.array(one, np.float32) for one in ([0, 0, 0, 1], [0, 0.5, 0], [0, 0, 0, 0, 2])]
DONE = [np.array([False] * (n - 1) + [end]) for n, end in ((4, True), (3, False), (5, True))]
VERSIONS = ["v2.0", "v2.1", "v3.0"]


def _read(source):
    return list(checks.episodes(source.recording()))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_number_stays_and_images_are_named(tmp_path, version):
    found = recorded_files.episodes()
    columns = {"next.reward": REWARDS, "next.done": DONE}
    path = recorded_files.write_lerobot(tmp_path / "set", found, version, columns)
    assert user_source(path) is LeRobot
    recording = LeRobot(path).recording()
    assert recording.observation_names == tuple(f"observation.state[{name}]" for name in ("pan", "lift", "grip"))
    assert recording.action_names == ("action[left]", "action[right]")
    assert recording.left_out == ("observation.images.front",)
    assert (recording.frame_rate, recording.steps, recording.details["robot"]) == (30, 12, "so100")
    for episode, one, rewards in zip(_read(LeRobot(path)), found, REWARDS, strict=True):
        np.testing.assert_array_equal(episode.observations, one["observations"][:-1], strict=True)
        np.testing.assert_array_equal(episode.actions, one["actions"], strict=True)
        np.testing.assert_array_equal(episode.rewards, rewards, strict=True)
    # What ends with next.done ended the task, the rest was cut.
    assert [one.terminated[-1] for one in _read(LeRobot(path))] == [True, False, True]


def test_next_truncated_tells_time_outs_from_terminations(tmp_path):
    columns = {
        "next.reward": REWARDS,
        "next.done": [np.arange(n) == n - 1 for n in (4, 3, 5)],
        "next.truncated": [np.zeros(4, bool), np.arange(3) == 2, np.zeros(5, bool)],
    }
    path = recorded_files.write_lerobot(tmp_path / "set", recorded_files.episodes(), "v3.0", columns)
    found = [(one.terminated[-1], one.truncated) for one in _read(LeRobot(path))]
    assert found == [(True, False), (False, True), (True, False)]


@pytest.mark.parametrize("version", VERSIONS)
def test_rewards_that_are_missing_need_a_rule(tmp_path, version):
    success = [np.arange(n) == place for n, place in ((4, 3), (3, 1), (5, 4))]
    columns = {"next.success": success}
    path = recorded_files.write_lerobot(tmp_path / "set", recorded_files.episodes(), version, columns)
    with pytest.raises(ValueError, match="has no rewards; say where they come from with --reward success-at-end, last"):
        LeRobot(path).recording()
    at_end = _read(LeRobot(path, reward=("success-at-end",)))
    assert [one.rewards.tolist() for one in at_end] == [[0, 0, 0, 1], [0, 0, 0], [0, 0, 0, 0, 1]]
    assert [one.terminated[-1] for one in at_end] == [True, False, True]
    assert [sum(one.rewards) for one in _read(LeRobot(path, reward=("last-step",)))] == [1, 1, 1]
    assert _read(LeRobot(path, reward=("from", "next.success")))[1].rewards.tolist() == [0, 1, 0]
    data = LeRobot(path, reward=("success-at-end",), validation_fraction=0.0).load()
    assert data.provenance["reward"] == "1 at the last step of episodes that end in success, else 0"
    # The last step of the cut episode has no known successor.
    assert len(data.train) == 11 and float(np.asarray(data.train.masks).sum()) == 15 - 2


def test_lengths_that_do_not_match_are_refused(tmp_path):
    columns = {"next.reward": REWARDS}
    path = recorded_files.write_lerobot(tmp_path / "set", recorded_files.episodes(), "v2.1", columns)
    lines = (path / "meta/episodes.jsonl").read_text().splitlines()
    (path / "meta/episodes.jsonl").write_text("\n".join([*lines[:2], json.dumps({"episode_index": 2, "length": 9})]))
    with pytest.raises(ValueError, match="has 5 steps of episode 2, but its description says 9; fetch"):
        _read(LeRobot(path))
    (path / "data/chunk-000/episode_000002.parquet").unlink()
    with pytest.raises(ValueError, match=r"has 7 steps in its parquet files, but meta/info.json says 12"):
        LeRobot(path).recording()
