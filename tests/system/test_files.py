"""File writes are atomic: a file is complete, or the old one stays."""

import errno
import json
import os
import pathlib

import pytest

from sorl.system import entry
from sorl.system.files import make_directory, read_json, user_cache, whole_file, write_csv, write_json


@pytest.mark.parametrize("mode, old, new", [("w", "old\n", "new\n"), ("wb", b"old", b"new")])
def test_replaces_only_when_whole(tmp_path, mode, old, new):
    path = tmp_path / "file"
    read = path.read_bytes if "b" in mode else path.read_text
    with whole_file(path, mode) as file:
        file.write(old)
        assert not path.exists()
    with pytest.raises(RuntimeError, match="half way"), whole_file(path, mode) as file:
        file.write(new)
        raise RuntimeError("half way")
    assert read() == old
    with whole_file(path, mode) as file:
        file.write(new)
    assert read() == new
    assert list(tmp_path.iterdir()) == [path]


def test_json(tmp_path):
    write_json(tmp_path / "file.json", {"a": [1, None]})
    assert json.loads((tmp_path / "file.json").read_text()) == {"a": [1, None]} == read_json(tmp_path / "file.json")


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(other)
    with whole_file(tmp_path / "file") as file:
        file.write("new")
    assert (other.read_text(), (tmp_path / "file").read_text()) == ("precious", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    dead = 2**22 + 1  # above every system's highest process id
    kept = [f".file.{os.getppid()}.tmp", ".file.tmp", f".file2.{dead}.tmp", f"file.{dead}.tmp"]
    for name in (f".file.{dead}.tmp", f".file.{10**30}.tmp", *kept):
        (tmp_path / name).write_text("half")
    write_json(tmp_path / "file", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", *kept])


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, OSError, "no space left on device; free some disk space and start again"),
        (errno.EMFILE, OSError, "too many open files; raise the limit on open files (ulimit -n) and start again"),
        (errno.EACCES, PermissionError, "permission denied; give a directory that you may write"),
    ],
)
def test_the_systems_errors_are_one_sentence_with_the_files_name(tmp_path, number, kind, said):
    path = tmp_path / "file"
    with pytest.raises(kind) as caught, whole_file(path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"{path} cannot be written: {said}."
    assert caught.value.errno == number
    assert entry.sentence(caught.value) == str(caught.value)  # as a command prints it
    assert list(tmp_path.iterdir()) == []


def test_errors_of_other_files_pass(tmp_path):
    with pytest.raises(FileNotFoundError, match="another"), whole_file(tmp_path / "file"):
        open(tmp_path / "another")


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match=rf"^{tmp_path}/file cannot be written: is a directory; [^\n]*\.$"):
        write_json(tmp_path / "file", {})
    (tmp_path / "plain").write_text("")
    with pytest.raises(OSError, match=rf"^{tmp_path}/plain/new/one cannot be made: not a directory; remove the file"):
        make_directory(tmp_path / "plain" / "new" / "one")


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to(os.devnull)
    for path in (tmp_path / "pipe", tmp_path / "device"):
        with pytest.raises(FileExistsError, match=rf"^{path} is a pipe or a device; give the name of a file\.$"):
            write_json(path, {})
        assert not path.is_file()
    assert sorted(os.listdir(tmp_path)) == ["device", "pipe"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"[1]", b"null", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"]
)
def test_a_damaged_json_file_is_one_sentence_with_its_name(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path} (is empty, damaged or|holds a JSON)[^\n]*\.$"):
        read_json(path)


def test_json_that_is_missing_or_unreadable_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^There is no file {tmp_path}/none; make it again\.$"):
        read_json(tmp_path / "none", "make it again")
    with pytest.raises(ValueError, match=rf"^{tmp_path} is empty, damaged or no JSON in UTF-8 \(it is no file\)"):
        read_json(tmp_path)


def test_without_a_home_the_variable_to_set_is_named(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where the user has none
    with pytest.raises(FileNotFoundError, match="^~/.cache needs a home directory.*; set HOME or XDG_CACHE_HOME.$"):
        user_cache("xla")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert user_cache("xla") == pathlib.Path("/cache/sorl/xla")


def test_rows_are_written_as_csv(tmp_path):
    rows = [{"step": 1, "success": None}, {"step": 2, "success": 0.5}]
    write_csv(tmp_path / "a.csv", rows)
    write_csv(tmp_path / "b.csv", rows[1:], ["success", "step", "length"])
    assert (tmp_path / "a.csv").read_bytes() == b"step,success\n1,\n2,0.5\n"
    assert (tmp_path / "b.csv").read_bytes() == b"success,step,length\n0.5,2,\n"
