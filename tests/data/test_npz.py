"""Every reader refuses damaged npz files in one sentence, and reads unusual ones."""

import os
import pathlib
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from sorl.data import load_logs, npz, records
from sorl.data.checks import read_arrays
from sorl.data.ogbench.download import fetch
from tests.broken_npz import BROKEN, GOOD, ODD, ROWS, UNFIT


NAME = "set.npz"


@pytest.fixture(autouse=True)
def _nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files" / NAME


def _is_one_sentence(error, *names):
    said = str(error)
    return (
        "Type-check" not in said
        and "\n" not in said
        and said.endswith(".")
        and len(said) < 600
        and all(str(name) in said for name in names)
    )


@pytest.mark.parametrize("case", [*BROKEN, *UNFIT])
def test_a_broken_log_is_one_sentence(path, case):
    path.write_bytes({**BROKEN, **UNFIT}[case])
    with pytest.raises(ValueError) as caught:
        load_logs(path)
    assert _is_one_sentence(caught.value, path), caught.value


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("header that is no literal", "its header is damaged: Cannot parse header: '[<f8]\\n'"),
        ("unknown dtype", "its header is damaged: descr is not a valid dtype descriptor: '<z9'"),
        ("encrypted", "it is encrypted"),
        ("huge shape", "its header says shape [1000000000000000, 2] of float64, but its size is 181 bytes"),
        ("objects", "it has dtype object, not real numbers or booleans"),
        ("npy of version 9", "its npy format has version 9.0, known are 1.0 and 2.0"),
    ],
)
def test_the_reason_is_told(path, case, reason):
    path.write_bytes(BROKEN[case])
    with pytest.raises(npz.DamagedFileError) as caught:
        load_logs(path)
    remedy = "store plain, undamaged arrays of numbers"
    assert str(caught.value) == f"observations of {path} cannot be read ({reason}); {remedy}."
    assert npz.damage(path) == f"observations: {reason}"


@pytest.mark.parametrize("case", ["flipped bytes in a deflated stream", "truncated after a half", "objects"])
def test_a_broken_validation_file_is_one_sentence_with_its_own_name(path, case):
    path.write_bytes(GOOD)
    path.with_name("set-val.npz").write_bytes(BROKEN[case])
    with pytest.raises(ValueError) as caught:
        load_logs(path)
    assert _is_one_sentence(caught.value, "set-val.npz")


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_download_is_one_sentence_and_a_good_one_comes_next(path, tmp_path, case):
    bad, good = tmp_path / "bad", tmp_path / "good"
    for host, content in ((bad, BROKEN[case]), (good, GOOD)):
        host.mkdir()
        (host / NAME).write_bytes(content)
    for _ in range(2):
        with pytest.raises(ConnectionError) as caught:
            fetch(NAME, path.parent, [bad.as_uri()], progress=False)
        said = str(caught.value)
        assert said.startswith(f"{bad.as_uri()}/{NAME}: the file it sent is damaged (")
        assert _is_one_sentence(f"{said}.", NAME)
        assert [file.name for file in path.parent.iterdir()] == [".sorl.lock"]
    assert fetch(NAME, path.parent, [bad.as_uri(), good.as_uri()], progress=False).read_bytes() == GOOD


@hypothesis.given(position=st.integers(0, len(GOOD) - 1), mask=st.integers(1, 255))
@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_no_changed_byte_changes_the_data(path, position, mask):
    content = bytearray(GOOD)
    content[position] ^= mask
    path.write_bytes(content)
    try:
        found = read_arrays(path, ROWS)
    except ValueError as error:
        assert _is_one_sentence(error, path)
    else:
        for key, expected in ROWS.items():
            np.testing.assert_array_equal(found[key], expected)


@pytest.mark.parametrize("case", ODD)
def test_an_odd_file_is_read(path, case):
    path.write_bytes(ODD[case])
    with npz.opened(path) as file:
        for key, expected in ROWS.items():
            found = file.read(key)
            assert found.dtype.isnative
            np.testing.assert_array_equal(found, expected)
    plain = path.with_name("plain.npz")
    plain.write_bytes(GOOD)
    for one, other in zip(*(jax.tree.leaves(load_logs(p).train) for p in (path, plain)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert npz.damage(path) is None


def test_members_that_are_no_arrays_are_left_out(path):
    path.write_bytes(UNFIT["an array that is not named so"])
    with npz.opened(path) as file:
        assert file.keys == ["actions", "rewards", "terminals", "timeouts"]


def test_what_is_no_file_is_one_sentence(path, tmp_path):
    os.mkfifo(path)
    for place in (path, tmp_path, pathlib.Path("/dev/zero")):
        with pytest.raises(ValueError) as caught:
            load_logs(place)
        assert _is_one_sentence(caught.value, place)
    with pytest.raises(FileNotFoundError, match=r"^There is no file [^\n]*none\.npz; give the npz file of your logs"):
        load_logs(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=r"^There is no file [^\n]*none\.npz; give an npz file\.$"):
        with npz.opened(tmp_path / "none.npz"):
            pass


def test_a_file_that_may_not_be_read_is_one_sentence(path):
    path.write_bytes(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ValueError) as caught:
        load_logs(path)
    assert _is_one_sentence(caught.value, path, "ermission denied")


@pytest.mark.parametrize("case", ["huge shape", "shape beyond all integers", "a size that lies"])
def test_a_size_that_lies_takes_no_memory(path, case):
    path.write_bytes(BROKEN[case])
    with npz.opened(path) as file:
        tracemalloc.start()
        with pytest.raises(npz.DamagedFileError):
            file.read("observations")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10_000_000


def test_an_array_is_read_without_a_second_copy(path):
    np.savez_compressed(path, values=np.zeros(4_000_000))
    with npz.opened(path) as file:
        tracemalloc.start()
        file.read("values")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1.3 * 32_000_000


@pytest.mark.parametrize("content", [b"", b'{"size": 12', b"[]", b"\xff"])
def test_a_damaged_record_is_one_sentence_with_its_name(path, content):
    path.write_bytes(GOOD)
    records.record_path(path).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        records.verified(path)
    assert _is_one_sentence(caught.value, "set.npz.json")
