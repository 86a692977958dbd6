"""A lock file is held by one process at a time, and opening it harms no other file."""

import os
import subprocess
import sys

import pytest

from sorl.system import locks
from sorl.system.locks import exclusive


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path):
    path = tmp_path / "new" / ".lock"
    with exclusive(path, "busy"):
        with pytest.raises(BlockingIOError, match="^busy$"), exclusive(path, "busy"):
            pass
    with exclusive(path, "busy"):
        pass


def test_a_held_lock_is_seen_without_taking_it(tmp_path):
    path = tmp_path / ".lock"
    assert not locks.is_held(path) and not path.exists()
    with exclusive(path, "busy"):
        assert locks.is_held(path)
    assert not locks.is_held(path)


def test_a_lock_that_is_removed_while_it_is_looked_at_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tmp_path), "is_file", lambda path: True)
    assert not locks.is_held(tmp_path / ".lock")


def test_a_lock_that_is_removed_while_it_is_taken_keeps_others_out_all_the_same(tmp_path, monkeypatch):
    path, lock = tmp_path / ".lock", locks._lock

    def remove_once(descriptor, *arguments):
        lock(descriptor, *arguments)
        monkeypatch.setattr(locks, "_lock", lock)
        path.unlink()  # as a trainer does whose start failed

    monkeypatch.setattr(locks, "_lock", remove_once)
    with exclusive(path, "busy"):
        with pytest.raises(BlockingIOError, match="^busy$"), exclusive(path, "busy"):
            pass


def test_the_lock_is_released_when_its_process_is_killed(tmp_path):
    program = (
        "import pathlib, sys, time; from sorl.system.locks import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), exclusive(tmp_path / ".lock", "busy"):
            pass
        process.kill()
    with exclusive(tmp_path / ".lock", "busy"):
        pass


def test_waiting_is_told_and_ends_with_the_other_process(tmp_path):
    program = (
        "import pathlib, sys; from sorl.system.locks import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1])): print('held', flush=True)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / ".lock")]
    pipe = subprocess.PIPE
    with exclusive(tmp_path / ".lock"):
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        assert process.stderr is not None
        assert process.stderr.readline() == f"Waiting for another process that works in {tmp_path}.\n"
    assert process.communicate() == ("held\n", "")


def test_what_the_file_holds_stays(tmp_path):
    (tmp_path / ".lock").write_text("precious")
    with exclusive(tmp_path / ".lock"):
        pass
    assert (tmp_path / ".lock").read_text() == "precious"


def test_a_link_is_refused_and_its_target_left_alone(tmp_path):
    other, missing = tmp_path / "other", tmp_path / "missing"
    other.write_text("precious")
    for target in (other, missing):
        (tmp_path / ".lock").symlink_to(target)
        with pytest.raises(OSError, match=rf"^{tmp_path}/.lock is a link or a directory[^\n]*; remove it\.$"):
            with exclusive(tmp_path / ".lock"):
                pass
        (tmp_path / ".lock").unlink()
    assert other.read_text() == "precious"
    assert not missing.exists()


def test_a_pipe_or_a_directory_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(OSError, match=rf"^{tmp_path}/{name} is [^\n]*; remove it\.$"), exclusive(tmp_path / name):
            pass


def test_a_read_only_directory_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(
        PermissionError, match=r"\.lock cannot be opened as a lock: permission denied; give a directory"
    ):
        with exclusive(tmp_path / ".lock"):
            pass


def test_a_system_without_locks_names_those_that_have_them(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(OSError, match="cannot be locked on this system; run sorl on Linux or macOS"):
        with exclusive(tmp_path / ".lock"):
            pass


def test_files_are_written_where_there_is_no_fcntl(tmp_path):
    program = "import sys; sys.modules['fcntl'] = None; from sorl.system import files, locks; print(locks.fcntl)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
