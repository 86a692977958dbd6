"""Data directories: written whole or not at all, read back bit for bit, and refused where they are damaged."""

import json
import subprocess
import sys
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from sorl.data.mapped import array_writer, recording as recording_module
from sorl.data.mapped.manifest import read_manifest
from sorl.data.mapped.reader import open_arrays, read_whole, verify
from sorl.data.mapped.writer import MappedWriter, join
from sorl.data.paging import release


def _episode(length, seed=0, **changes):
    draw = np.random.default_rng(seed)
    arrays = {
        "observations": draw.normal(size=(length, 3)),
        "actions": draw.uniform(-1, 1, (length, 2)).astype(np.float32),
        "rewards": draw.normal(size=length).astype(np.float32),
        "terminations": np.arange(length) == length - 1,
        **changes,
    }
    return {name: values for name, values in arrays.items() if values is not None}


def _write(path, lengths, first=0, **options):
    with MappedWriter(path, **options) as writer:
        for number, length in enumerate(lengths, first):
            final = np.full(3, float(number)) if number % 2 else None
            writer.append(_episode(length, number), final)
    return path


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks of 64 bytes, so that tiny arrays have several, and rows cross their boundaries."""
    monkeypatch.setattr(array_writer, "BLOCK_BYTES", 64)


@hypothesis.given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6))
@hypothesis.settings(
    deadline=None, max_examples=20, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, lengths):
    path = _write(tmp_path_factory.mktemp("set") / "data", lengths)
    manifest, arrays = open_arrays(path)
    verify(path)
    assert (manifest.rows, manifest.episodes) == (sum(lengths), len(lengths))
    assert arrays["episode_lengths"].tolist() == lengths
    for name, values in _episode(1).items():
        expected = np.concatenate([_episode(length, number)[name] for number, length in enumerate(lengths)])
        loaded = read_whole(path, name, manifest.arrays[name])
        # Any program that reads npy files reads these.
        for found in (arrays[name], loaded, np.load(path / f"{name}.npy", allow_pickle=False)):
            assert found.dtype == values.dtype
            np.testing.assert_array_equal(found, expected)
    assert arrays["final_known"].tolist() == [number % 2 == 1 for number in range(len(lengths))]
    finals = [
        [number] * 3 if number % 2 else _episode(n, number)["observations"][-1] for number, n in enumerate(lengths)
    ]
    np.testing.assert_array_equal(arrays["final_observations"], finals)


def test_shards_are_joined_to_what_one_process_would_write(tmp_path):
    whole = _write(tmp_path / "whole", [4, 5, 6, 7], action_range=([-1.0, -1.0], [1.0, 2.0]))
    shards = [
        _write(tmp_path / "a", [4, 5], action_range=([-1.0, -1.0], [1.0, 2.0]), provenance={"robot": "left"}),
        _write(tmp_path / "b", [6, 7], first=2, action_range=([-1.0, -1.0], [1.0, 2.0])),
    ]
    joined = join(tmp_path / "joined", shards)
    verify(joined)
    for name in read_manifest(whole).arrays:
        assert (joined / f"{name}.npy").read_bytes() == (whole / f"{name}.npy").read_bytes()
    assert read_manifest(joined).provenance == {"robot": "left"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["joined", "whole"]


def test_episodes_that_shards_hold_out_are_held_out_of_the_whole(tmp_path):
    provenance = [{"about": {"form": "test", "held_out": [1]}}, {}, {"about": {"held_out": [0, 2]}}]
    shards = [_write(tmp_path / name, [4, 5, 6], provenance=own) for name, own in zip("abc", provenance, strict=True)]
    found = read_manifest(join(tmp_path / "joined", shards, keep=True)).provenance
    assert found == {"about": {"form": "test", "held_out": [1, 6, 8]}}
    assert read_manifest(join(tmp_path / "own", shards, provenance={"by": "me"})).provenance == {"by": "me"}


def test_a_final_observation_that_its_dtype_cannot_hold_is_refused(tmp_path):
    half: dict[str, Any] = {"observations": np.zeros((4, 3), np.float16)}
    with MappedWriter(tmp_path / "half") as writer:
        writer.append(_episode(4, **half), np.array([0.1, 0, 0]))  # rounded
        with pytest.raises(ValueError, match=r"episode 1 .* is \[70000.0, 0.0, 0.0\], which float16, the dtype of"):
            writer.append(_episode(4, **half), np.array([7e4, 0, 0]))
    small: dict[str, Any] = {"observations": np.zeros((4, 3), np.int16)}
    with MappedWriter(tmp_path / "data") as writer:
        writer.append(_episode(4, **small), np.array([1.0, 2.0, 3.0]))
        for bad in ([4.7, 0, 0], [40_000, 0, 0]):
            with pytest.raises(ValueError, match="which int16, the dtype of its observations, cannot hold"):
                writer.append(_episode(4, **small), np.array(bad))


def test_shards_with_other_arrays_are_refused_and_kept(tmp_path):
    a = _write(tmp_path / "a", [4])
    with MappedWriter(tmp_path / "b") as writer:
        writer.append(_episode(4, rewards=None))
    with pytest.raises(ValueError, match="rewards of .*b: no such array, but episodes before it have float32 of shape"):
        join(tmp_path / "joined", [a, tmp_path / "b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_header_that_would_reach_into_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="An array has 31 axes"):
        _write_one(tmp_path / "a", np.zeros((2, *[1] * 30)))
    assert not list(tmp_path.iterdir())


def _write_one(path, depth):
    with MappedWriter(path) as writer:
        writer.append(_episode(len(depth), depth=depth))


def test_shards_with_other_action_ranges_are_refused_and_kept(tmp_path):
    shards = [
        _write(tmp_path / "a", [4], action_range=([-1.0, -1.0], [1.0, 1.0])),
        _write(tmp_path / "b", [4], action_range=([-1.0, -1.0], [1.0, 2.0])),
    ]
    with pytest.raises(ValueError, match=r"The action range of .*b is .*2.0.*, that of .*a .*1.0.*; write all shards"):
        join(tmp_path / "joined", shards)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_shards_whose_columns_are_in_another_order_are_refused_and_kept(tmp_path):
    orders = (["x", "y", "z"], ["x", "z", "y"])
    shards = [
        _write(tmp_path / name, [4], provenance={"about": {"observation_names": order, "action_names": ["u", "v"]}})
        for name, order in zip("ab", orders, strict=True)
    ]
    with pytest.raises(ValueError, match=r"b has z in column 1 of its observations, where .*a has y; give .* x, y, z"):
        join(tmp_path / "joined", shards)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_shard_that_is_a_link_is_refused_before_the_work(tmp_path):
    _write(tmp_path / "a", [4])
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"The shard .*link is a link, which cannot be removed; name its directory, or"
    ):
        join(tmp_path / "joined", [tmp_path / "link"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]
    verify(join(tmp_path / "joined", [tmp_path / "link"], keep=True))


def test_shards_that_cannot_be_joined_are_refused_before_the_work(tmp_path):
    _write(tmp_path / "a", [4])
    with pytest.raises(ValueError, match="There is no shard to join to .*; give at least one data directory"):
        join(tmp_path / "joined", [])
    with pytest.raises(ValueError, match=r"The shard .*a is named twice; name each once"):
        join(tmp_path / "joined", [tmp_path / "a", tmp_path / "b" / ".." / "a"])
    _write(tmp_path / "a" / "inner", [4])
    with pytest.raises(ValueError, match=r"joined is inside the shard .*a, which is removed; give a place beside it"):
        join(tmp_path / "a" / "joined", [tmp_path / "a"])
    with pytest.raises(ValueError, match=r"inner is inside the shard .*a, which is removed; give a place beside it"):
        join(tmp_path / "joined", [tmp_path / "a" / "inner", tmp_path / "a"])
    with pytest.raises(ValueError, match="The shards are .*a, one name; give a list of data directories"):
        join(tmp_path / "joined", str(tmp_path / "a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_names_may_be_text(tmp_path):
    a, b = (str(_write(tmp_path / name, [4])) for name in "ab")
    verify(join(str(tmp_path / "joined"), [a, b], keep=True))
    verify(str(tmp_path / "joined"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "joined"]


@pytest.mark.parametrize("bounds", [([1.0, 0.0], [-1.0, 1.0]), ([0.0], [1.0, 1.0]), ([-np.inf, 0.0], [1.0, 1.0])])
def test_an_action_range_that_is_none_is_refused_at_once(tmp_path, bounds):
    with pytest.raises(ValueError, match="The action range of .*; give a finite low <= high for each action"):
        MappedWriter(tmp_path / "data", action_range=bounds)


def test_an_action_range_of_another_size_is_refused_with_the_first_episode(tmp_path):
    shard = _write(tmp_path / "shard", [4])
    with MappedWriter(tmp_path / "data", action_range=([-1.0] * 3, [1.0] * 3)) as writer:
        with pytest.raises(ValueError, match="is of 3 actions, and episode 0 of .* has 2; give a finite"):
            writer.append(_episode(4))
        with pytest.raises(ValueError, match="is of 3 actions, and .*shard has 2"):
            writer.append_directory(str(shard))
        writer._range = None
        writer.append(_episode(4))


def test_a_stream_of_episodes_releases_what_was_read_and_keeps_what_it_gave(tmp_path, monkeypatch):
    path, released = _write(tmp_path / "a", [4, 5, 6]), []
    monkeypatch.setattr(recording_module, "RELEASED_ROWS", 9)
    monkeypatch.setattr(recording_module, "release", lambda *arrays: (released.append(len(arrays)), release(*arrays)))
    episodes = list(recording_module.recording(path).read([]))
    assert len(released) == 1 and released[0] == len(read_manifest(path).arrays)
    for number, (length, episode) in enumerate(zip([4, 5, 6], episodes, strict=True)):
        np.testing.assert_array_equal(episode.observations[:length], _episode(length, number)["observations"])


def test_the_digest_is_that_of_the_contents(tmp_path):
    one, same = (_write(tmp_path / name, [4, 5], provenance={"name": name}) for name in ("one", "same"))
    other = _write(tmp_path / "other", [4, 6])
    digests = [read_manifest(path).sha256 for path in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_a_directory_is_whole_or_not_there(tmp_path):
    with pytest.raises(RuntimeError, match="half way"), MappedWriter(tmp_path / "data") as writer:
        writer.append(_episode(4))
        assert not (tmp_path / "data").exists()
        raise RuntimeError("half way")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="would hold no episode"), MappedWriter(tmp_path / "data"):
        pass
    assert list(tmp_path.iterdir()) == []
    _write(tmp_path / "data", [4])
    with pytest.raises(FileExistsError, match="exists already; remove it"), MappedWriter(tmp_path / "data"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_provenance_that_cannot_be_written_is_refused_before_the_data(tmp_path):
    with pytest.raises(ValueError, match=r"'rate' in the provenance of .* is np.float32\(1.5\) \(.*\); give texts, n"):
        MappedWriter(tmp_path / "data", provenance={"robot": "left arm", "rate": np.float32(1.5)})


def test_whole_number_actions_become_real_numbers_with_a_note(tmp_path):
    with MappedWriter(tmp_path / "data") as writer:
        writer.append(_episode(4, actions=np.arange(8).reshape(4, 2)))
    notes = []
    (episode,) = recording_module.recording(tmp_path / "data").read(notes)
    assert episode.actions.dtype == np.float64 and episode.actions.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert notes == ["actions of data are whole numbers, but the policy acts with real numbers between them."]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / f".data.{2**22 + 1}.tmp"
    left.mkdir()
    (left / "actions.npy").write_bytes(b"half")
    _write(tmp_path / "data", [4])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("changes", "final", "said"),
    [
        ({"rewards": None}, None, "rewards of episode 1 of .*: no such array, but episodes before it have float32"),
        ({"rewards": np.zeros(4)}, None, "rewards of episode 1 of .*: float64 of shape .* have float32"),
        ({"actions": np.zeros((4, 3), np.float32)}, None, r"float32 of shape \[3\] a row, but .* \[2\] a row"),
        ({"observations": None}, None, "episode 1 of .* lacks observations"),
        ({"observations": np.full((4, 3), np.nan)}, None, "observations of episode 1 of .* is not finite in row 0"),
        ({"terminations": np.full(4, 2)}, None, "terminations of episode 1 of .* is 2 in row 0; give 0 or 1"),
        ({"rewards": np.full(4, 1e13, np.float32)}, None, "rewards of episode 1 .* beyond 1e"),
        ({"Other": np.zeros(4)}, None, "an array named 'Other'"),
        ({"qpos": np.zeros(3)}, None, "qpos of episode 1 .* each of the 4 steps"),
        ({"observations": np.zeros((4, 2), np.float32)}, np.zeros(3), r"float32 of shape \[2\] a row, but .* \[3\]"),
        ({"terminations": None, "terminals": np.zeros(4)}, None, "array named terminals; name it terminations"),
        ({}, np.zeros(2), r"final observation of episode 1 .* shape \[2\]; give \[3\]"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path, changes, final, said):
    with pytest.raises(ValueError, match=said), MappedWriter(tmp_path / "data") as writer:
        writer.append(_episode(4))
        writer.append(_episode(4, **changes), final)
    assert list(tmp_path.iterdir()) == []


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_damaged_block_is_named(tmp_path):
    path = _write(tmp_path / "data", [4, 5])
    _flip(path / "actions.npy", 128 + 70)
    open_arrays(path)  # sizes are as they were
    said = r"Block 1 of .*actions.npy \(rows 8 to 8\) is damaged \(its SHA-256 is not the recorded one\); copy"
    with pytest.raises(ValueError, match=said):
        verify(path)
    verify(path, ["observations"])
    with pytest.raises(ValueError, match=said):  # what is converted or inspected must not be damaged
        next(recording_module.recording(path).read([]))
    with pytest.raises(ValueError, match=said):
        read_whole(path, "actions", read_manifest(path).arrays["actions"])


def test_a_missing_block_is_named_at_once(tmp_path):
    path = _write(tmp_path / "data", [4, 5])
    content = (path / "observations.npy").read_bytes()
    (path / "observations.npy").write_bytes(content[:-20])
    with pytest.raises(ValueError, match=r"Block 3 of .*observations.npy \(rows 8 to 8\) is missing or cut \(the file"):
        open_arrays(path)
    (path / "observations.npy").unlink()
    with pytest.raises(FileNotFoundError, match="There is no file .*observations.npy, which data.json lists; copy"):
        open_arrays(path)


def _edited(path, change):
    content = json.loads((path / "data.json").read_text())
    change(content)
    (path / "data.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it.update(version=2), "version 2 of its format, and this is sorl for version 1; read it with"),
        (lambda it: it.update(units="rad"), "has the unknown field 'units'; read it with the release that wrote it"),
        (lambda it: it.update(format="zarr"), "format 'zarr' instead of 'sorl-data'"),
        (lambda it: it.update(rows=10), "is damaged .observations has 9 rows.; copy"),
        (lambda it: it.update(arrays=None), "is damaged .'NoneType' object has no attribute 'items'.; copy"),
        (lambda it: it["arrays"].pop("actions"), "is damaged .it lists no array actions.; copy"),
        (
            lambda it: it["arrays"].update({"../x": it["arrays"]["actions"]}),
            "is damaged .an array is named '../x'.; copy",
        ),
        (lambda it: it["arrays"]["actions"].update(dtype="O"), "is damaged .actions is of object with shape"),
        (lambda it: it["arrays"]["actions"]["blocks"].pop(), "is damaged .the blocks of actions are not its 72 bytes"),
        (lambda it: it.pop("provenance"), "is damaged .'provenance'.; copy"),
        (lambda it: it["arrays"]["actions"].update(shape=[18, 1]), "is damaged .actions has 18 rows"),
        (lambda it: it["arrays"]["rewards"].update(dtype="<i4"), "is damaged .its arrays or action range are not"),
        (lambda it: it.update(action_range=[[-1, -1], [1, 2]]), "is damaged .its arrays or action range are not"),
        (
            lambda it: it["arrays"]["rewards"].update(dtype="<i4") or it.pop("sha256"),  # it was not always written
            "rewards.npy has 164 bytes and its header does not",
        ),
    ],
)
def test_an_edited_description_is_one_sentence(tmp_path, change, said):
    path = _write(tmp_path / "data", [4, 5])
    _edited(path, change)
    with pytest.raises(ValueError, match=said):
        open_arrays(path)


def test_a_data_directory_needs_no_jax():
    """Workers write data directories."""
    code = "import sys, sorl.data.mapped.writer; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
