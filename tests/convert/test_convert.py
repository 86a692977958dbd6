import dataclasses
import errno
import hashlib
import json
import os
from typing import Any

import numpy as np
import pytest

from sorl.convert import __main__ as command, npz_writer
from sorl.convert.convert import convert
from sorl.data import Logs, load_logs
from sorl.data.recorded import checks
from sorl.data.recorded.episodes import LoggedEpisode, Recording

from .. import recorded_files


def _recording(episodes, path):
    first = episodes[0]
    return Recording(
        path=path,
        form="test",
        read=lambda notes: iter(episodes),
        observation_names=tuple(f"o{i}" for i in range(first.observations.shape[1])),
        action_names=tuple(f"a{i}" for i in range(first.actions.shape[1])),
        files=(path,),
        frame_rate=20.0,
        reference_scores=(-1.0, 3.0),
    )


def _episodes(ends, dtype=np.float64, last=True):
    """Episodes of a recording; `ends` are pairs of terminated and truncated."""
    return [
        LoggedEpisode(
            one["observations"] if last else one["observations"][:-1],
            one["actions"],
            one["rewards"],
            (np.arange(len(one["rewards"])) == len(one["rewards"]) - 1) & terminated,
            truncated,
            f"episode {number}",
        )
        for number, (one, (terminated, truncated)) in enumerate(
            zip(recorded_files.episodes(dtype=dtype, lengths=(4, 3, 5, 1)[: len(ends)]), ends, strict=True)
        )
    ]


def _read_back(out):
    return list(checks.episodes(Logs(out).recording()))


def _assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        for key in ("observations", "actions", "rewards", "terminated"):
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key), strict=True)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").write_text("raw")
    return tmp_path / "source"


@pytest.mark.parametrize("name", ["out.npz", "out"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_bit_and_every_flag_stays(tmp_path, source, name, dtype, monkeypatch):
    monkeypatch.setattr(npz_writer, "BLOCK_BYTES", 50)
    monkeypatch.setattr("sorl.data.tables.npz_table.BLOCK_BYTES", 90)
    # A negative zero, a denormal number and neighbours of 1 show any conversion.
    episodes = _episodes([(True, False), (False, True), (True, True), (False, True)], dtype)
    odd = np.array([-0.0, np.finfo(dtype).smallest_subnormal, np.nextafter(dtype(1), dtype(2))], dtype)
    episodes[1].observations[0] = odd
    done = convert(_recording(episodes, source), tmp_path / name, quiet=True)
    assert (done.episodes, done.steps, done.terminated, done.truncated) == (4, 13, 2, 3)
    found = _read_back(tmp_path / name)
    _assert_same(found, episodes)
    assert found[1].observations[0].tobytes() == odd.tobytes()
    # Both flags of the third episode are kept.
    assert [one.truncated for one in found] == [False, True, True, True]


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_last_states_that_are_unknown_stay_unknown(tmp_path, source, name):
    episodes = _episodes([(True, False), (False, True), (False, False)], last=False)
    assert convert(_recording(episodes, source), tmp_path / name, quiet=True).without_last_state == 3
    _assert_same(_read_back(tmp_path / name), episodes)


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_known_and_unknown_last_states_stay_apart(tmp_path, source, name):
    ends = [(False, True), (False, True), (False, True)]
    episodes = [*_episodes(ends)[:1], *_episodes(ends, last=False)[1:2], *_episodes(ends)[2:]]
    convert(_recording(episodes, source), tmp_path / name, quiet=True)
    _assert_same(_read_back(tmp_path / name), episodes)


@pytest.mark.parametrize("name", ["out.npz", "out"])
@pytest.mark.parametrize("known", [(), (2,), (0, 1, 2)])
def test_what_is_known_does_not_depend_on_equal_states(tmp_path, source, name, known):
    """Every episode begins at home; those that are cut there end in a copy of the next one's first state."""
    home = np.ones(3)
    episodes = []
    for number, one in enumerate(_episodes([(False, True)] * 3)):
        one.observations[0], steps = home, len(one.actions)
        one.observations[-1 if number in known else steps - 1] = home
        episodes.append(one if number in known else one._replace(observations=one.observations[:steps]))
    convert(_recording(episodes, source), tmp_path / name, quiet=True)
    _assert_same(_read_back(tmp_path / name), episodes)
    data = load_logs(tmp_path / name, validation_fraction=0.0)
    assert len(data.train) == sum(len(one.observations) - 1 for one in episodes)


def test_a_trajectory_may_go_on_after_a_termination(tmp_path, source):
    episodes = _episodes([(True, False), (False, True)])
    episodes[0].terminated[1] = True
    convert(_recording(episodes, source), tmp_path / "out.npz", quiet=True)
    found = _read_back(tmp_path / "out.npz")
    assert [one.terminated.tolist() for one in found] == [[False, True, False, True], [False] * 3]
    data = load_logs(tmp_path / "out.npz", validation_fraction=0.0)
    assert np.asarray(data.train.masks)[np.asarray(data.train.starts)].tolist() == [1, 0, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_the_sources_own_split_stays(tmp_path, source, name):
    recording = dataclasses.replace(
        _recording(_episodes([(True, False)] * 4), source), held_out=frozenset({"episode 1", "episode 2"})
    )
    assert "held out     2 episodes" in convert(recording, tmp_path / name, quiet=True).text()
    assert Logs(tmp_path / name).recording().held_out == recording.held_out
    data = load_logs(tmp_path / name)
    assert data.provenance["validation"] == {"by": "the data's own split", "episodes": 2, "transitions": 3 + 5}
    assert data.provenance["about"]["observation_names"] == ["o0", "o1", "o2"]
    # The record lies beside the file, and not beside a link to it.
    link = tmp_path / "links" / name
    link.parent.mkdir()
    link.symlink_to(tmp_path / name)
    assert Logs(link).recording().held_out == recording.held_out
    assert load_logs(link).provenance["validation"] == data.provenance["validation"]


def test_the_record_names_the_source_and_its_columns(tmp_path, source):
    convert(_recording(_episodes([(True, False)]), source), tmp_path / "out.npz", quiet=True)
    record = json.loads((tmp_path / "out.npz.json").read_text())
    digest = hashlib.sha256(b"raw").hexdigest()
    assert record["converted_from"] == {"name": "source", "size": 3, "sha256": digest}
    assert record["counts"] == {"episodes": 1, "steps": 4, "terminated": 1, "truncated": 0, "without_last_state": 0}
    found = Logs(tmp_path / "out.npz").recording()
    assert found.observation_names == ("o0", "o1", "o2") and found.action_names == ("a0", "a1")
    assert found.frame_rate == 20 and found.reference_scores == (-1, 3)
    assert load_logs(tmp_path / "out.npz").provenance["about"]["observation_names"] == ["o0", "o1", "o2"]
    # A record of another file is not believed.
    content: dict[str, Any] = dict(np.load(tmp_path / "out.npz"))
    np.savez(tmp_path / "out.npz", more=np.zeros(3), **content)
    assert Logs(tmp_path / "out.npz").recording().observation_names[0] == "observations[0]"
    assert "out.npz was changed after its conversion" in _notes(tmp_path / "out.npz")[-1]
    with (
        pytest.warns(UserWarning, match="keys that are not used: more"),
        pytest.warns(UserWarning, match="out.npz was changed after its conversion, so .* out.npz.json are not used"),
    ):
        data = load_logs(tmp_path / "out.npz")
    assert "about" not in data.provenance and "changed after" in data.provenance["summary"]["notes"][-1]
    # A file of this name may be the user's own.
    (tmp_path / "out.npz.json").write_text("[1, 2]")
    assert _notes(tmp_path / "out.npz") == []


def _notes(path):
    notes = []
    list(checks.episodes(Logs(path).recording(), notes))
    return notes


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_nothing_is_left_of_a_conversion_that_fails(tmp_path, source, name):
    episodes = _episodes([(True, False), (False, True)])
    episodes[1].rewards[2] = np.nan
    with pytest.raises(ValueError, match=r"rewards of .*source in step 2 of episode 1: nan, which is not finite"):
        convert(_recording(episodes, source), tmp_path / name, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_directory_that_refuses_new_files_is_named_by_the_output(tmp_path, source, monkeypatch):
    opened = os.open

    def refuse(path, flags, *mode, **options):
        if flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return opened(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"/out\.npz cannot be written: read-only file system; give a directory"):
        convert(_recording(_episodes([(True, False)]), source), tmp_path / "out.npz", quiet=True)


def test_a_disk_that_is_full_at_the_last_rows_is_named_by_the_output(tmp_path, source, monkeypatch):
    monkeypatch.setattr(npz_writer.tempfile, "TemporaryFile", lambda **place: open("/dev/full", "w+b"))
    with pytest.raises(OSError, match=r"/out\.npz cannot be written: no space left on device; free some disk space"):
        convert(_recording(_episodes([(True, False)]), source), tmp_path / "out.npz", quiet=True)


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_nothing_is_overwritten(tmp_path, source, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="exists already; remove it"):
        convert(_recording(_episodes([(True, False)]), source), tmp_path / name, quiet=True)
    assert (tmp_path / name).read_text() == "mine"


def test_a_record_is_not_overwritten(tmp_path, source):
    (tmp_path / "out.npz.json").write_text("mine")
    with pytest.raises(FileExistsError, match="out.npz.json exists and is no earlier result of this command; give"):
        convert(_recording(_episodes([(True, False)]), source), tmp_path / "out.npz", quiet=True)
    assert (tmp_path / "out.npz.json").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz.json", "source"]


def test_a_conversion_that_is_killed_leaves_no_file_without_its_record(tmp_path, source, monkeypatch):
    recording = _recording(_episodes([(True, False)] * 2), source)
    recording = dataclasses.replace(recording, held_out=frozenset({"episode 1"}))
    rename = os.replace

    def killed(temporary, path):
        rename(temporary, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(recording, tmp_path / "out.npz", quiet=True)
    assert not (tmp_path / "out.npz").exists()
    convert(recording, tmp_path / "out.npz", quiet=True)
    assert Logs(tmp_path / "out.npz").recording().held_out == recording.held_out


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_episodes_of_a_narrower_dtype_are_widened(tmp_path, source, name):
    wide, narrow = _episodes([(True, False), (True, False)])
    narrow = narrow._replace(observations=narrow.observations.astype(np.float32))
    convert(_recording([wide, narrow], source), tmp_path / name, quiet=True)
    found = _read_back(tmp_path / name)[1].observations
    assert found.dtype == np.float64 and (found == narrow.observations).all()


def test_the_command_converts_and_says_what_it_found(tmp_path, capsys):
    pytest.importorskip("h5py")
    found = recorded_files.episodes()
    path = recorded_files.write_robomimic(tmp_path / "demo.hdf5", found, [[0, 0, 0, 1], [0, 0, 0], [0] * 4 + [1]])
    command.main(command.Config(path, tmp_path / "out.npz", observation_keys=("object",), quiet=True))
    said = capsys.readouterr().out
    for words in (
        "3: 2 terminated, 1 cut; 12 steps",
        "observations 1: object",
        "left out     obs/eef_pos, obs/front_image",
        "frame rate   20 a second",
        f"python -m sorl.train --data {tmp_path / 'out.npz'}",
    ):
        assert words in said
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(
            arrays["observations"], np.concatenate([one["observations"][:-1, :1] for one in found]), strict=True
        )
        assert arrays["timeouts"].tolist() == [row == 6 for row in range(12)]
        assert arrays["terminals"].tolist() == [row in (3, 11) for row in range(12)]
