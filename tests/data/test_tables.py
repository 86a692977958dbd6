import numpy as np
import pytest

from sorl.convert.convert import convert
from sorl.data import Logs
from sorl.data.recorded import checks
from sorl.data.sources import user_source
from sorl.data.tables.source import TableFile

from .. import recorded_files


def _read(source):
    return list(checks.episodes(source.recording()))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_named_columns_become_episodes(tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    found = recorded_files.episodes(dtype=np.float64)
    path = recorded_files.write_table(tmp_path / f"a.{suffix}", found)
    source = TableFile(path)
    assert user_source(path) is TableFile
    recording = source.recording()
    assert recording.observation_names == ("x", "y", "z") and recording.action_names == ("u", "v")
    assert recording.frame_rate == 10
    episodes = _read(source)
    for episode, one in zip(episodes, found, strict=True):
        np.testing.assert_array_equal(episode.observations, one["observations"][:-1], strict=True)
        np.testing.assert_array_equal(episode.actions, one["actions"], strict=True)
        np.testing.assert_array_equal(episode.rewards, one["rewards"], strict=True)
        np.testing.assert_array_equal(episode.times, np.arange(len(one["rewards"])) / 10)
    assert [one.name for one in episodes] == ["episode 7", "episode 8", "episode 9"]
    assert [(one.terminated[-1], one.truncated) for one in episodes] == [(True, False), (True, False), (False, False)]
    assert [name for name in _read(TableFile(path, observation_keys=("z", "x")))[0].observations[0]] == [
        *found[0]["observations"][0, [2, 0]]
    ]


def test_vectors_in_parquet_lists(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    states = np.arange(12, dtype=np.float32).reshape(6, 2)
    table = {
        "state": pa.FixedSizeListArray.from_arrays(states.reshape(-1), 2),
        "action": pa.array(states[:, :1].tolist(), pa.list_(pa.float32())),
        "reward": np.zeros(6),
        "terminal": [False, True] * 3,
        "cut": [False] * 6,
    }
    parquet.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=2)
    mapping = tmp_path / "names.toml"
    mapping.write_text(
        'observations = "state"\nactions = "action"\nrewards = "reward"\nterminals = "terminal"\ntimeouts = "cut"\n'
    )
    episodes = _read(TableFile(tmp_path / "a.parquet", columns=mapping))
    np.testing.assert_array_equal(np.concatenate([one.observations for one in episodes]), states, strict=True)
    assert [one.terminated.tolist() for one in episodes] == [[False, True]] * 3


def test_vectors_that_change_their_size_between_batches_are_refused(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr("sorl.data.tables.parquet_table.BATCH_ROWS", 2)
    states = pa.array([[0.0, 1, 2], [1, 2, 3], [2.0, 3], [3, 4]], pa.list_(pa.float64()))
    columns = {"s": states, "a": np.arange(4.0), "run": np.zeros(4, np.int64)}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    (tmp_path / "a.toml").write_text('observations = "s"\nactions = "a"\nepisode = "run"\n')
    with pytest.raises(ValueError, match="s of .*a.parquet has 2 numbers in row 2, but 3 before; give every row the"):
        _read(TableFile(tmp_path / "a.parquet", reward=("last-step",)))


def test_large_numbers_of_episodes_stay_apart_or_are_refused(tmp_path):
    path, ids = tmp_path / "a.npz", np.array([2**60, 2**60, 2**60 + 1, 2**60 + 1])
    path.with_suffix(".toml").write_text('observations = "s"\nactions = "a"\nepisode = "run"\n')
    np.savez(path, s=np.zeros((4, 2)), a=np.arange(4.0), run=ids)
    assert len(_read(TableFile(path, reward=("last-step",)))) == 2
    np.savez(path, s=np.zeros((4, 2)), a=np.arange(4.0), run=ids.astype(np.float64))
    with pytest.raises(ValueError, match="run of .* in row 0; number episodes by whole numbers below 9007199254740992"):
        _read(TableFile(path, reward=("last-step",)))


@pytest.mark.parametrize("last, named", [("nan", "nan"), ("-1", "-1.0")])
def test_a_success_that_is_neither_0_nor_1_is_refused(tmp_path, last, named):
    path = tmp_path / "a.csv"
    path.write_text(f"x,f,run,ok\n0,1,0,nan\n1,-1,0,1\n0,0.5,1,0\n1,0,1,{last}\n")
    path.with_suffix(".toml").write_text('observations = "x"\nactions = "f"\nsuccess = "ok"\nepisode = "run"\n')
    with pytest.raises(ValueError, match=rf"The success of .*a.csv is {named} in row 3 \(episode 1\); give 1 where"):
        _read(TableFile(path, reward=("success-at-end",)))
    path.write_text("x,f,run,ok\n0,1,0,nan\n1,-1,0,1\n0,0.5,1,0\n1,0,1,0\n")
    assert [one.rewards.tolist() for one in _read(TableFile(path, reward=("success-at-end",)))] == [[0, 1], [0, 0]]


@pytest.mark.parametrize("reward", [("from", "env:gain"), ("from:env:gain",)])
def test_a_column_of_rewards_may_have_a_colon_in_its_name(tmp_path, reward):
    path = tmp_path / "colon.csv"
    path.write_text("x,u,done,env:gain\n0,1,0,3\n1,0,1,4\n")
    path.with_suffix(".toml").write_text('observations="x"\nactions="u"\nterminals="done"\ntimeouts="done"\n')
    assert [one.rewards.tolist() for one in _read(TableFile(path, reward=reward))] == [[3, 4]]


def test_an_npz_file_is_a_table_where_a_mapping_says_so(tmp_path):
    path = tmp_path / "a.npz"
    states = np.asfortranarray(np.arange(8.0).reshape(4, 2))
    actions = np.arange(-1.0, 1.0, 0.5)[:, None]
    np.savez_compressed(path, s=states, a=actions, r=np.arange(4.0), end=[0, 1, 0, 1], m=[1, 0, 1, 1])
    assert user_source(path) is Logs
    (tmp_path / "a.toml").write_text(
        'observations = "s"\nactions = "a"\nrewards = "r"\nterminals = "end"\nmasks = "m"\naction_low = [-2]\n'
        "action_high = [2.0]\n"
    )
    assert user_source(path) is TableFile
    first, second = _read(TableFile(path))
    assert first.observations.tolist() == [[0, 1], [2, 3]] and first.terminated.tolist() == [False, True]
    assert second.rewards.tolist() == [2, 3] and not second.terminated.any()
    data = TableFile(path, validation_fraction=0.0).load()
    assert data.normalisation.action_high.tolist() == [2.0] and len(data.train) == 3


def test_own_logs_that_were_converted_from_a_table_are_no_table(tmp_path):
    (tmp_path / "a.csv").write_text("x,u,r,run\n1,2,3,0\n4,5,6,0\n7,8,9,1\n")
    (tmp_path / "a.toml").write_text('observations = "x"\nactions = "u"\nrewards = "r"\nepisode = "run"\n')
    convert(TableFile(tmp_path / "a.csv").recording(), tmp_path / "a.npz", quiet=True)
    assert user_source(tmp_path / "a.npz") is Logs  # although a.toml lies beside it
    assert user_source(tmp_path / "a.npz", tmp_path / "a.toml") is TableFile
    first, second = _read(Logs(tmp_path / "a.npz"))
    assert first.observations.tolist() == [[1], [4]] and second.rewards.tolist() == [9]


@pytest.mark.parametrize("dtype", [np.int8, np.bool_, np.float16])
def test_observations_whose_range_their_own_dtype_cannot_hold(tmp_path, dtype):
    states = np.array([[-100], [100], [7], [1]]).astype(dtype)
    if dtype == np.float16:
        states = np.array([[-60000], [60000], [7], [1]], dtype)
    ends = np.array([0, 1, 0, 1])
    columns = {"observations": states, "actions": np.ones((4, 1)), "rewards": np.zeros(4), "terminals": ends}
    after = {"next_observations": np.roll(states, -1, axis=0), "next_known": np.ones(4)}
    np.savez(tmp_path / "a.npz", timeouts=np.zeros(4), **columns, **after)  # type: ignore[arg-type]
    first, second = _read(Logs(tmp_path / "a.npz"))
    np.testing.assert_array_equal(first.observations, states[:3], strict=True)
    np.testing.assert_array_equal(second.observations, states[[2, 3, 0]], strict=True)


def test_masks_tell_a_cut_from_a_termination(tmp_path):
    columns = {"observations": np.zeros((4, 1)), "actions": np.ones((4, 1)), "rewards": np.zeros(4)}
    np.savez(tmp_path / "a.npz", terminals=[0, 1, 0, 1], masks=[1, 0, 1, 1], **columns)  # type: ignore[arg-type]
    assert [one.truncated for one in _read(Logs(tmp_path / "a.npz"))] == [False, True]


def test_own_logs_stream_as_they_load(tmp_path, monkeypatch):
    found = recorded_files.episodes(dtype=np.float64)
    steps = np.cumsum([len(one["rewards"]) for one in found])
    terminals, timeouts = np.zeros((2, 12))
    terminals[steps[[0, 2]] - 1], timeouts[steps[1] - 1] = 1, 1
    np.savez(
        tmp_path / "a.npz",
        actions=np.concatenate([one["actions"] for one in found]),
        rewards=np.concatenate([one["rewards"] for one in found]),
        observations=np.concatenate([one["observations"][:-1] for one in found]),
        next_observations=np.concatenate([one["observations"][1:] for one in found]),
        terminals=terminals,
        timeouts=timeouts,
        action_low=np.full(2, -3.0),
        action_high=np.full(2, 3.0),
        colour=np.zeros(12),
    )
    monkeypatch.setattr("sorl.data.tables.npz_table.BLOCK_BYTES", 300)
    recording = Logs(tmp_path / "a.npz").recording()
    for episode, one in zip(checks.episodes(recording), found, strict=True):
        np.testing.assert_array_equal(episode.observations, one["observations"], strict=True)
    assert recording.action_limits == ((-3.0, -3.0), (3.0, 3.0)) and recording.left_out == ("colour",)
    assert [one.truncated for one in checks.episodes(recording)] == [False, True, False]


def test_columns_of_another_kind_of_file_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.toml").write_text('observations = "x"\nactions = "u"\nepisode = "e"\n')
    with pytest.raises(ValueError, match="Columns are for npz, parquet and CSV files, and .* ends in none of .npz"):
        TableFile(tmp_path / "a.txt", columns=tmp_path / "a.toml").recording()
    with pytest.raises(FileNotFoundError, match="There is no file .*a.parquet; give the parquet file of your logs"):
        TableFile(tmp_path / "a.parquet").recording()
    (tmp_path / "a.csv").write_text("x,u,e\n1,2,0\n")
    with pytest.raises(ValueError, match="^observation-keys names 'x' twice; name each column once"):
        TableFile(tmp_path / "a.csv", observation_keys=("x", "x")).recording()


def test_an_episode_that_goes_on_after_a_time_out_is_refused(tmp_path):
    # Row 1 was cut, and row 2 may follow a reset; a termination in mid-episode is kept.
    (tmp_path / "a.csv").write_text("x,u,r,done,cut,run\n0,0,0,1,0,4\n1,0.5,0,0,1,4\n2,0,1,0,0,4\n")
    mapping = 'observations = "x"\nactions = "u"\nrewards = "r"\nterminals = "done"\nepisode = "run"\n'
    (tmp_path / "a.toml").write_text(mapping)
    (episode,) = _read(TableFile(tmp_path / "a.csv"))
    assert episode.terminated.tolist() == [True, False, False] and not episode.truncated
    (tmp_path / "a.toml").write_text(mapping + 'timeouts = "cut"\n')
    with pytest.raises(ValueError, match="has a time-out in row 1, but the episode of that row continues in the next"):
        _read(TableFile(tmp_path / "a.csv"))
