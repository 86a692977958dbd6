import numpy as np
import pytest

from sorl.data.hdf5.source import Hdf5
from sorl.data.recorded import checks

from .. import recorded_files


h5py = pytest.importorskip("h5py")
ENDS = ["terminal", "timeout", "terminal"]


@pytest.fixture
def found():
    return recorded_files.episodes()


def _read(source):
    notes = []
    return list(checks.episodes(source.recording(), notes)), notes


def test_d4rl_keeps_every_number_and_tells_terminations_from_time_outs(tmp_path, found):
    path = recorded_files.write_d4rl(tmp_path / "a.hdf5", found, ENDS)
    episodes, notes = _read(Hdf5(path))
    for episode, one in zip(episodes, found, strict=True):
        np.testing.assert_array_equal(episode.observations, one["observations"], strict=True)
        np.testing.assert_array_equal(episode.actions, one["actions"], strict=True)
        np.testing.assert_array_equal(episode.rewards, one["rewards"], strict=True)
    assert [one.terminated.tolist() for one in episodes] == [[False] * 3 + [True], [False] * 3, [False] * 4 + [True]]
    assert [one.truncated for one in episodes] == [False, True, False]
    assert [one.first_row for one in episodes] == [0, 4, 7] and not notes


def test_d4rl_without_next_observations_lacks_last_states_and_may_end_open(tmp_path, found):
    path = recorded_files.write_d4rl(tmp_path / "a.h5", found, ["timeout", "terminal", "open"], successors=False)
    episodes, notes = _read(Hdf5(path))
    assert [len(one.observations) - len(one.actions) for one in episodes] == [0, 0, 0]
    assert [(one.terminated[-1], one.truncated) for one in episodes] == [(False, True), (True, False), (False, False)]
    assert notes == ["The last trajectory of a.h5 is not marked as ended in row 11; it counts as cut."]


def test_d4rl_next_observations_of_the_next_episode_count_as_unknown(tmp_path, found):
    shifted = np.roll(np.concatenate([one["observations"][:-1] for one in found]), -1, axis=0)
    path = recorded_files.write_d4rl(tmp_path / "a.hdf5", found, ENDS, changes={"next_observations": shifted})
    episodes, notes = _read(Hdf5(path))
    assert not any(one.has_last_state for one in episodes)
    assert len(notes) == 1 and "after 3 of 3 episodes (first in row 3)" in notes[0]


def test_d4rl_concatenates_chosen_arrays_in_order(tmp_path, found):
    goals = np.arange(24.0).reshape(12, 2)
    path = recorded_files.write_d4rl(tmp_path / "a.hdf5", found, ENDS, changes={"infos/goal": goals})
    recording = Hdf5(path).recording()
    assert recording.left_out == ("infos/goal",)
    source = Hdf5(path, observation_keys=("infos/goal", "observations"))
    assert source.recording().observation_names == (
        *("infos/goal[0]", "infos/goal[1]"),
        *("observations[0]", "observations[1]", "observations[2]"),
    )
    episodes, _ = _read(source)
    assert episodes[0].observations.dtype == np.float64
    np.testing.assert_array_equal(episodes[1].observations[:, :2], goals[4:7])
    np.testing.assert_array_equal(episodes[1].observations[:, 2:], found[1]["observations"][:3])


def test_blocks_do_not_change_episodes(tmp_path, found, monkeypatch):
    path = recorded_files.write_d4rl(tmp_path / "a.hdf5", found, ENDS)
    whole, _ = _read(Hdf5(path))
    monkeypatch.setattr("sorl.data.hdf5.d4rl.BLOCK_BYTES", 80)  # two rows
    for one, other in zip(_read(Hdf5(path))[0], whole, strict=True):
        for key in ("observations", "actions", "rewards", "terminated"):
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key), strict=True)


def test_robomimic_concatenates_vectors_and_names_images(tmp_path, found):
    dones = [[0, 0, 0, 1], [0, 0, 0], [0, 0, 1, 1, 1]]
    path = recorded_files.write_robomimic(tmp_path / "a.hdf5", found, dones)
    recording = Hdf5(path).recording()
    assert recording.observation_names == ("eef_pos[0]", "eef_pos[1]", "object")
    assert recording.left_out == ("obs/front_image",) and recording.frame_rate == 20
    episodes, _ = _read(Hdf5(path, observation_keys=("object", "eef_pos")))
    for episode, one, done in zip(episodes, found, dones, strict=True):
        np.testing.assert_array_equal(episode.observations, one["observations"], strict=True)
        np.testing.assert_array_equal(episode.rewards, one["rewards"], strict=True)
        assert episode.terminated.tolist() == [bool(flag) for flag in done]
    assert [one.truncated for one in episodes] == [False, True, False]


def test_robomimics_splits(tmp_path):
    found = recorded_files.episodes(lengths=(2,) * 11)
    masks = {"mask/train": [b"demo_10", b"demo_2"], "mask/valid": [b"demo_1"]}
    path = recorded_files.write_robomimic(tmp_path / "a.hdf5", found, [[0, 1]] * 11, masks)
    assert [one.name for one in _read(Hdf5(path, split="train"))[0]] == ["demo_2", "demo_10"]
    data = Hdf5(path).load()
    assert data.provenance["validation"] == {"by": "the data's own split", "episodes": 1, "transitions": 2}
    assert data.provenance["episodes"] == 10 and len(data.train) == 20
    every = {"mask/valid": [f"demo_{number}".encode() for number in range(11)]}
    none_left = recorded_files.write_robomimic(tmp_path / "b.hdf5", found, [[0, 1]] * 11, every)
    with pytest.raises(ValueError, match="The split of .* holds out every episode; leave some to train on"):
        Hdf5(none_left).load()
    with pytest.raises(ValueError, match="has no split 'test'; it has train, valid"):
        Hdf5(path, split="test").recording()


def test_rewards_of_a_rule(tmp_path, found):
    path = recorded_files.write_robomimic(tmp_path / "a.hdf5", found, [[0, 0, 0, 1], [0, 0, 0], [0] * 5])
    with h5py.File(path, "a") as file:
        for number in range(3):
            del file[f"data/demo_{number}/dones"]
            file[f"data/demo_{number}/success"] = np.arange(len(found[number]["rewards"])) >= 3 * (number != 1)
    with_last, _ = _read(Hdf5(path, reward=("last-step",)))
    assert [one.rewards.tolist() for one in with_last] == [[0, 0, 0, 1], [0, 0, 1], [0, 0, 0, 0, 1]]
    # No flag says how they ended, so nothing follows the goal.
    assert [one.terminated[-1] for one in with_last] == [True, True, True]
    with h5py.File(path, "a") as file:
        file["data/demo_1/success"][...] = 0
    at_end, _ = _read(Hdf5(path, reward=("success-at-end",)))
    assert [one.rewards.tolist() for one in at_end] == [[0, 0, 0, 1], [0, 0, 0], [0, 0, 0, 0, 1]]
    assert [one.terminated[-1] for one in at_end] == [True, False, True]
    columns, _ = _read(Hdf5(path, reward=("from", "success")))
    assert columns[0].rewards.tolist() == [0, 0, 0, 1] and columns[2].rewards.tolist() == [0, 0, 0, 1, 1]


def test_a_rule_does_not_change_ends_that_are_logged(tmp_path, found):
    path = recorded_files.write_d4rl(tmp_path / "a.hdf5", found, ENDS)
    episodes, _ = _read(Hdf5(path, reward=("last-step",)))
    assert [(one.terminated[-1], one.truncated) for one in episodes] == [(True, False), (False, True), (True, False)]


def test_episodes_that_a_rule_cannot_judge_are_refused(tmp_path):
    for number, (steps, judged, fault) in enumerate(
        [(3, 2, "has 3 actions, 2 rewards and 3 end flags in demo_1; give"), (0, 0, "has no step in demo_1; drop that")]
    ):
        found, success = recorded_files.episodes((4, steps, 5)), zip(range(3), (4, judged, 5), strict=True)
        columns = {f"data/demo_{demo}/success": np.ones(rows) for demo, rows in success}
        path = tmp_path / f"{number}.hdf5"
        recorded_files.write_robomimic(path, found, [[0] * 4, [0] * steps, [0] * 5], columns)
        with pytest.raises(ValueError, match=fault):
            _read(Hdf5(path, reward=("success-at-end",)))
