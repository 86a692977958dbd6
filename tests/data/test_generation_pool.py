"""The worker processes of a generation, replaced by programs that need no simulator."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from sorl.data.generation import pool
from sorl.data.generation.pool import GenerationWorkerError, collect


PREAMBLE = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.readline())
open(os.path.join(job["folder"], f"pid-{os.getpid()}"), "w").close()
def episodes():
    for line in sys.stdin:
        yield tuple(json.loads(line))
def reply(**message):
    os.write(1, json.dumps(message).encode() + b"\\n")
"""
PLAIN = "for split, number in episodes(): reply(rows=10 * split + number)"
STOPPED = """
for split, number in episodes():
    if number == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    reply(rows=number)
"""
KILLED = STOPPED.replace("SIGSTOP", "SIGKILL")
FAILING = "for split, number in episodes(): reply(failure='OSError: the disk is full')"
ENDING = "sys.exit(7)"
SLEEPING = "next(episodes()); time.sleep(1000)"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs workers with this program, and checks that no process is left."""

    monkeypatch.setattr(pool, "PATIENCE", 0.3)

    def start(program, episodes, count=2, timeout=60.0):
        monkeypatch.setattr(pool, "COMMAND", PREAMBLE + program)
        return collect({"folder": str(tmp_path)}, episodes, count, timeout)

    yield start
    assert not _alive(tmp_path)


def _alive(folder: pathlib.Path):
    pids = [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_every_episode_is_collected_once(run, tmp_path):
    episodes = [(split, number) for split in range(2) for number in range(5)]
    assert sorted(run(PLAIN, episodes)) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert len(list(tmp_path.glob("pid-*"))) == 2


def test_no_more_workers_are_started_than_there_are_episodes(run, tmp_path):
    assert list(run(PLAIN, [(0, 3)], count=4)) == [3]
    assert list(run(PLAIN, [], count=4)) == []
    assert len(list(tmp_path.glob("pid-*"))) == 1


def _failure(finished):
    with pytest.raises(GenerationWorkerError) as caught:
        for _ in finished:
            pass
    said = str(caught.value)
    assert said.startswith("The generation worker with process id ") and said.endswith(".") and "\n" not in said
    assert "run the same command again to continue after the finished episodes" in said
    return said


def test_a_hung_worker_is_named_and_killed(run, tmp_path):
    said = _failure(run(STOPPED, [(0, 0), (0, 1), (0, 2)], timeout=3.0))
    pids = [path.name.removeprefix("pid-") for path in tmp_path.glob("pid-*")]
    assert said.split(",")[0].removeprefix("The generation worker with process id ") in pids
    assert ", split 0, episode 1, has not finished within 3 s and was killed; " in said
    assert "--worker-timeout" in said


def test_one_of_many_that_hangs_is_noticed_while_the_others_work(run):
    program = STOPPED.replace("reply(", "time.sleep(0.05); reply(")
    assert "episode 1, has not finished" in _failure(run(program, [(0, n) for n in range(2000)], count=3, timeout=3.0))


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (KILLED, ", split 0, episode 1, was ended by SIGKILL (if memory ran out, give fewer --workers); "),
        (FAILING, " failed (OSError: the disk is full); "),
        (ENDING, " ended with exit code 7; "),
    ],
)
def test_a_worker_that_fails_is_one_sentence(run, program, sentence):
    assert sentence in _failure(run(program, [(0, 0), (0, 1)]))


def test_an_interruption_ends_the_workers_within_seconds(run):
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), closing(run(STOPPED, [(0, 0), (0, 1)])) as finished:
        assert next(finished) == 0
        raise KeyboardInterrupt
    assert time.monotonic() - started < 30


def test_workers_that_cannot_be_started_are_one_sentence(run, monkeypatch):
    start = subprocess.Popen
    starts = iter([start])

    def limited(*arguments, **settings):
        if not (again := next(starts, None)):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return again(*arguments, **settings)

    monkeypatch.setattr(subprocess, "Popen", limited)
    with pytest.raises(
        GenerationWorkerError, match="^3 generation workers cannot be started .*; give fewer --workers.$"
    ):
        list(run(SLEEPING, [(0, 0), (0, 1), (0, 2)], count=3))


def _worker(folder, recipe="{}"):
    job = {"recipe": json.loads(recipe), "seed": 0, "folder": str(folder)}
    command, environment = pool.worker_command(pool.COMMAND)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    return process, json.dumps(job) + "\n"


def test_the_workers_own_exception_is_one_line_to_the_parent(tmp_path):
    process, job = _worker(tmp_path)
    answer, said = process.communicate(job)
    assert json.loads(answer)["failure"].startswith("TypeError: Recipe.__init__() missing")
    assert (answer.count("\n"), said, process.returncode) == (1, "", 0)


def test_a_worker_whose_parent_is_gone_says_nothing(tmp_path):
    process, job = _worker(tmp_path)
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.write(job)
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
    process.stderr.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_leave_signals_to_their_parent(tmp_path):
    """Workers ignore the signals that a terminal or a scheduler sends to all processes of a job."""
    process, job = _worker(tmp_path)
    assert process.stdin
    process.stdin.write(job)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        _wait(lambda number=number: _ignores(process.pid, number))
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends with its input")
def test_a_stopped_worker_dies_with_its_parent():
    program = (
        "import subprocess, time; from sorl.data.generation import pool as room\n"
        "command, environment = room.worker_command(room.COMMAND)\n"
        "worker = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, process_group=0)\n"
        "print(worker.pid, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        _wait(lambda: _ignores(worker, signal.SIGTERM))
        os.kill(worker, signal.SIGSTOP)
        parent.kill()
    _wait(lambda: not os.path.exists(f"/proc/{worker}") or _status(worker, "State") == "Z")


def _wait(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _ignores(pid, number):
    return bool(int(_status(pid, "SigIgn"), 16) >> (number - 1) & 1)


def _status(pid, field):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))
