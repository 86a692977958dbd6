"""Data stay on the device, in memory or on disk: the same numbers everywhere, and the same logs in an npz file."""

import functools
import hashlib
import os
import pathlib
import shutil

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.data import host as host_module, load_logs, residence
from sorl.data.mapped.reader import open_arrays
from sorl.data.mapped.writer import MappedWriter
from sorl.data.paging import mapping
from sorl.data.residence import Size, choose
from sorl.data.transitions import Dataset, Window


WINDOWS = (Window(), Window(n_step=3), Window(chunk=2), Window(n_step=4, chunk=3))
GIB = 2**30


def write_both(folder: pathlib.Path, lengths, *, known=(), terminated=(), seed=0) -> tuple[pathlib.Path, pathlib.Path]:
    """The same made-up logs as an npz file and as a data directory.

    After the trajectories in `known` the next observation is known; `terminated` are rows of the whole.
    """
    draw = np.random.default_rng(seed)
    rows, ends = sum(lengths), np.cumsum(lengths) - 1
    arrays = {
        "observations": draw.normal(1e6, 3.0, (rows, 3)),
        "actions": draw.uniform(-2, 3, (rows, 2)).astype(np.float32),
        "rewards": draw.normal(size=rows).astype(np.float32),
        "terminals": np.isin(np.arange(rows), list(terminated)),
    }
    finals = draw.normal(1e6, 3.0, (len(lengths), 3))
    nexts = np.concatenate([arrays["observations"][1:], finals[-1:]])
    nexts[ends] = finals
    with MappedWriter(folder / "logs") as writer:
        for number, (length, end) in enumerate(zip(lengths, ends, strict=True)):
            part = {name: values[end + 1 - length : end + 1] for name, values in arrays.items()}
            part["terminations"] = part.pop("terminals")
            writer.append(part, finals[number] if number in known else None)
    # An npz file says by the next episode's first observation that a successor is not known.
    for number in set(range(len(lengths))) - set(known):
        nexts[ends[number]] = arrays["observations"][(ends[number] + 1) % rows]
    masks = 1 - arrays.pop("terminals")
    timeouts = np.isin(np.arange(rows), ends)
    np.savez(folder / "logs.npz", **arrays, next_observations=nexts, terminals=timeouts, masks=masks)
    return folder / "logs.npz", folder / "logs"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return write_both(tmp_path_factory.mktemp("both"), [5, 9, 3, 12, 7, 4], known=(0, 3), terminated=(8, 16, 39))


def _quietly(path, **options):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_logs(path, validation_fraction=0.3, **options)


@functools.partial(jax.jit, static_argnums=2)
def _on_device(dataset, indices, window):
    return dataset.gather(indices, window)


def _assert_same_windows(device, other, window, indices):
    expected, found = _on_device(device, jnp.asarray(indices), window), other.gather(indices, window)
    for name, leaf in vars(expected).items():
        if leaf is None:
            assert getattr(found, name) is None
            continue
        assert getattr(found, name).dtype == leaf.dtype
        np.testing.assert_array_equal(getattr(found, name), leaf, err_msg=name)


@pytest.mark.parametrize("place", ["host", "disk"])
def test_every_window_has_the_bits_of_the_device(both, place):
    """Also of the same logs in an npz file, which decides scales, the split and the summary alike."""
    npz, directory = both
    device, other = _quietly(npz), _quietly(directory, residence=place)
    assert (other.residence.residence, len(other.train)) == (place, len(device.train))
    for one, two in zip(jax.tree.leaves(device.normalisation), jax.tree.leaves(other.normalisation), strict=True):
        np.testing.assert_array_equal(one, two)
    summaries = [data.provenance["summary"] | {"notes": [], "unused_keys": []} for data in (device, other)]
    assert summaries[0] == summaries[1]
    np.testing.assert_array_equal(device.train.reward_limits(), other.train.reward_limits())
    assert device.train.sizes == other.train.sizes == (3, 2)
    assert device.validation is not None and other.validation is not None
    for window in WINDOWS:
        for known, own in ((device.train, other.train), (device.validation, other.validation)):
            _assert_same_windows(known, own, window, np.arange(len(known), dtype=np.int32))


def test_a_directory_on_the_device_is_the_npz_file(both):
    npz, directory = (_quietly(path) for path in both)
    for one, two in zip(jax.tree.leaves(npz.train), jax.tree.leaves(directory.train), strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_npz_file_stays_on_the_host_without_a_copy(both):
    data = _quietly(both[0], residence="host")
    rows = data.train.rows
    assert data.validation is not None and data.validation.rows is rows
    assert rows.observations.dtype == np.float64  # as logged
    _assert_same_windows(_quietly(both[0]).train, data.train, Window(), np.arange(len(data.train), dtype=np.int32))


@hypothesis.given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    known=st.sets(st.integers(0, 4)),
    terminated=st.sets(st.integers(0, 29), max_size=8),
    picked=st.lists(st.integers(0, 10**6), min_size=1, max_size=7),
    window=st.sampled_from(WINDOWS),
)
@hypothesis.settings(
    deadline=None, max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_gathering_on_the_host_equals_gathering_on_the_device(
    tmp_path_factory, monkeypatch, lengths, known, terminated, picked, window
):
    monkeypatch.setattr(host_module, "PIECE", 3)
    hypothesis.assume(max(lengths) > 1)
    _, path = write_both(tmp_path_factory.mktemp("any"), lengths, known=known, terminated=terminated)
    device, disk = (load_logs(path, validation_fraction=0.0, residence=place) for place in ("device", "disk"))
    indices = np.array(picked, np.int32) % len(device.train)
    behind, added = _behind_zeros(device.train)
    expected = _on_device(behind, np.resize(indices, 7) + added, window)
    found = disk.train.gather(indices, window)
    for one, two in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(one[: len(indices)], two)


def _behind_zeros(dataset, rows=35):
    """The data set behind rows and starts of 0, as many of each as make `rows`, and the number of starts added.

    So one program gathers from data of any size.
    """

    def padded(leaf, increase=0):
        widths = [(rows - len(leaf), 0)] + [(0, 0)] * (leaf.ndim - 1)
        return jax.device_put(np.pad(np.asarray(leaf) + increase, widths))

    leaves = {name: padded(leaf) for name, leaf in vars(dataset).items() if name != "starts"}
    starts = padded(dataset.starts, increase=rows - len(dataset.rewards))
    return Dataset(**leaves, starts=starts), rows - len(dataset)


def test_indices_of_any_shape(both):
    data = _quietly(both[1], residence="disk")
    indices = np.array([[3, 0], [7, 3]], np.int32)
    found = data.train.gather(indices, WINDOWS[3])
    assert (found.observation.shape, found.rewards.shape, found.next_action.shape) == ((2, 2, 3), (2, 2, 4), (2, 2, 6))
    np.testing.assert_array_equal(found.observation[0, 0], found.observation[1, 1])
    np.testing.assert_array_equal(found.next_action[1], data.train.gather(indices[1], WINDOWS[3]).next_action)


def test_a_validation_directory_beside_is_held_out(both, tmp_path):
    _, path = write_both(tmp_path, [5, 6], known=(0, 1))
    (tmp_path / "other").mkdir()
    _, beside = write_both(tmp_path / "other", [4], known=(0,), seed=1)
    beside.rename(tmp_path / "logs-val")
    data = load_logs(path, residence="disk")
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (11, 4)
    assert data.provenance["validation"]["path"] == str(tmp_path / "logs-val")


def test_a_damaged_block_is_refused_under_every_residence(both, tmp_path):
    _, path = write_both(tmp_path, [5, 6])
    content = bytearray((path / "rewards.npy").read_bytes())
    content[-1] ^= 1
    (path / "rewards.npy").write_bytes(content)
    for place in ("device", "host", "disk"):
        with pytest.raises(ValueError, match=r"Block 0 of .*rewards.npy \(rows 0 to 10\) is damaged"):
            load_logs(path, residence=place)


@pytest.mark.parametrize("change", [b"", b"\0" * 8])
def test_a_file_that_changes_under_a_training_is_refused(both, tmp_path, change):
    copy = tmp_path / "logs"
    shutil.copytree(both[1], copy)
    data = load_logs(copy, residence="disk").train
    before = data.gather(np.arange(4), Window())
    path = copy / "rewards.npy"
    with path.open("r+b") as file:
        file.seek(128)
        file.write(change) if change else file.truncate()
    with pytest.raises(ValueError, match=r"rewards\.npy was changed while it was in use; restore it from a copy"):
        data.gather(np.arange(4), Window())
    # Who has a file open that is replaced or removed still reads the old one.
    shutil.copy(both[1] / "rewards.npy", tmp_path / "rewards.npy")
    os.replace(tmp_path / "rewards.npy", path)
    data = load_logs(copy, residence="disk").train
    shutil.copy(path, tmp_path / "rewards.npy")
    os.replace(tmp_path / "rewards.npy", path)
    (copy / "actions.npy").unlink()
    np.testing.assert_array_equal(data.gather(np.arange(4), Window()).rewards, before.rewards)


def test_the_digest_of_a_directory_identifies_its_data(both):
    data = [_quietly(both[1], residence=place) for place in ("device", "host", "disk")]
    assert len({one.provenance["sha256"] for one in data}) == 1
    assert data[0].provenance["sha256"] != hashlib.sha256(both[0].read_bytes()).hexdigest()


def test_mapped_arrays_are_found_through_their_views(both):
    _, arrays = open_arrays(both[1])
    rewards = arrays["rewards"]
    assert mapping(rewards[:, None][1:]) is mapping(rewards) is not None
    assert mapping(np.array(rewards)) is None


@pytest.mark.parametrize(
    ("rows", "mappable", "device", "host", "expected"),
    [
        (1000, True, None, GIB, "device"),
        (10**8, True, None, GIB, "disk"),
        (10**8, False, None, GIB, "host"),
        (10**8, True, GIB, 64 * GIB, "host"),
        (10**8, True, GIB, 4 * GIB, "disk"),
        (10**8, True, None, None, "device"),
    ],
)
def test_auto_chooses_by_size(monkeypatch, rows, mappable, device, host, expected):
    monkeypatch.setattr(residence, "free_device_memory", lambda: device)
    monkeypatch.setattr(residence, "free_host_memory", lambda: host)
    chosen = choose("auto", Size(rows, 10, 2, raw_bytes=50 * rows, mappable=mappable), pathlib.Path("data"))
    assert chosen.residence == expected


def test_the_reason_names_the_sizes(monkeypatch):
    monkeypatch.setattr(residence, "free_device_memory", lambda: GIB)
    monkeypatch.setattr(residence, "free_host_memory", lambda: 4 * GIB)
    size = Size(10**8, 10, 2, raw_bytes=5 * 10**9, mappable=True)
    assert choose("auto", size, pathlib.Path("data")).reason == (
        "its 5.59 GiB exceed half of the 1 GiB free in the device, and 4.66 GiB as logged half of the host's"
    )


def test_what_cannot_be_had_is_refused(both):
    with pytest.raises(ValueError, match="residence is disk, but .*logs.npz is no data directory.* sorl.convert"):
        _quietly(both[0], residence="disk")
    with pytest.raises(ValueError, match="data has 3,000,000,000 steps; give at most 2,147,483,647"):
        choose("host", Size(3 * 10**9, 1, 1, 0, True), pathlib.Path("data"))
