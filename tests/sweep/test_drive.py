"""A sweep is carried through, whatever is killed, and its results are those of one that nothing disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sorl.runs.sweeps import SweepRun
from sorl.sweep import results, run
from sorl.sweep.attempt import Attempt
from sorl.sweep.drive import drive
from sorl.sweep.engines import local
from sorl.sweep.engines.local import LocalEngine
from sorl.system.locks import exclusive

from ..test_documentation import write_pendulum_logs


ENV = "gymnasium:Pendulum-v1"
SIZES = "--agent.hidden-sizes 8 --batch-size 8 --log-interval 20 --checkpoint-interval 20 --evaluation.workers 1"
EPISODES = "--evaluation.interval 20 --evaluation.episodes 1 --evaluation.final-episodes 1"


def words(place: Path, updates: int = 40) -> list[str]:
    """The command line of a small sweep: two agents, one task, two seeds."""
    options = f"--data {place / 'logs.npz'} --updates {updates} {SIZES} {EPISODES}"
    agents = ["--agents", "bc", "rebrac --agent.critic-hidden-sizes 8"]
    return [*agents, "--envs", ENV, "--seeds", "0", "1", "--group", "2", "--options", options, "--jobs", "2"]


def start(arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "sorl.sweep", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def trainers(out: Path) -> list[int]:
    """The processes that train a run of the sweep in `out`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has ended
            continue
        if command[1:3] == ["-m", "sorl.train"] and any(str(out) in word for word in command):
            found.append(int(path.name))
    return found


def wait_for(condition):
    for _ in range(1200):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never happened")


@pytest.mark.slow
def test_a_sweep_whose_command_and_a_worker_are_killed_has_the_same_results(tmp_path, capsys):
    write_pendulum_logs(tmp_path / "logs.npz")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run.main(run.parse([*words(tmp_path), "--out", str(undisturbed)])) == 0
    assert "2 of 2 runs finished" in capsys.readouterr().err

    first = start([*words(tmp_path), "--out", str(killed)])
    (worker, *_) = wait_for(lambda: trainers(killed))
    first.kill()
    first.wait()
    assert first.stdout is not None
    first.stdout.close()
    wait_for(lambda: list(killed.glob("*/*/*/checkpoints/[0-9]*")))
    os.kill(worker, signal.SIGKILL)
    # The same command waits for the run that still trains, and continues the other.
    assert run.main(run.parse([*words(tmp_path), "--out", str(killed)])) == 0
    assert (killed / "results.csv").read_bytes() == (undisturbed / "results.csv").read_bytes()
    assert (killed / "results.md").read_bytes() == (undisturbed / "results.md").read_bytes()
    rows = (undisturbed / "results.csv").read_text().splitlines()
    assert len(rows) > 8 and "own-logs-data+40-updates" in rows[1]

    # It never repeats a finished run.
    before = {path: path.stat().st_mtime_ns for path in killed.glob("*/*/*/attempt.json")}
    assert run.main(run.parse([*words(tmp_path), "--out", str(killed)])) == 0
    assert before == {path: path.stat().st_mtime_ns for path in killed.glob("*/*/*/attempt.json")}


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_continue(tmp_path):
    write_pendulum_logs(tmp_path / "logs.npz")
    out = tmp_path / "a sweep"
    process = start([*words(tmp_path, updates=10**6), "--out", str(out), "--agents", "bc"])
    wait_for(lambda: list(out.glob("*/*/*/checkpoints/0")))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 130
    assert "Continue with:\n  python -m sorl.sweep --agents bc" in said and f"--out '{out}'" in said
    assert trainers(out) == []
    (attempt,) = out.glob("*/*/*/attempt.json")
    assert json.loads(attempt.read_text())["exit_code"] == 128 + signal.SIGTERM


class Scripted:
    """An engine whose attempts end at once, each with the next of its run's exit codes."""

    has_room = True

    def __init__(self, codes):
        self.codes, self.started, self.stopped, self._ended = codes, [], False, {}

    @property
    def busy(self):
        return bool(self._ended)

    def start(self, attempt):
        self.started.append(Path(attempt.directory).name)
        self._ended[attempt.directory] = self.codes[Path(attempt.directory).name].pop(0)

    def poll(self):
        ended, self._ended = self._ended, {}
        return ended

    def stop(self):
        self.stopped = True


def planned(name):
    return SweepRun(name, "bc", None, (0,), ("seed-0",), {}, 40, False, "d", (), "-")


def test_a_killed_run_is_started_again_and_a_failed_one_stops_no_other(tmp_path, capsys):
    engine = Scripted({"killed": [137, 143, 137], "failed": [2], "third": [2]})
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "attempt.json").write_text('{"exit_code": 2}')
    (tmp_path / "failed" / "log.txt").write_text("error: There is no file logs.npz.\n")
    runs = [planned(name) for name in ("killed", "failed", "third")]
    assert not drive(tmp_path, runs, engine, retries=2, workers=None)
    assert engine.started == ["killed", "failed", "third", "killed", "killed"] and engine.stopped
    said = capsys.readouterr().err
    assert said.count("is started again") == 2
    assert "  failed    bc on own logs, seed 0: update 0 of 40; error: There is no file logs.npz.\n" in said


def test_places_have_equal_shares_of_the_cores_and_gpus(monkeypatch):
    started: list[Attempt] = []
    sleep = [sys.executable, "-c", ""]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5, 7})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    monkeypatch.setattr(Attempt, "process", lambda attempt: started.append(attempt) or subprocess.Popen(sleep))
    engine = LocalEngine(2, gpus=0.5)
    for name in "ab":
        engine.start(Attempt(name, (), ("seed-0",), 1, False))
    assert not engine.has_room
    assert [attempt.cores for attempt in started] == [(0, 1), (2, 5)]
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"}
    assert [attempt.environment for attempt in started] == [{"CUDA_VISIBLE_DEVICES": "3"} | memory] * 2
    ended = {}
    while engine.busy:
        ended |= engine.poll()
    assert ended == {"a": 0, "b": 0} and engine.has_room
    many = LocalEngine(10)
    assert [many._cores(place) for place in range(6)] == [(0,), (1,), (2,), (5,), (7,), (0,)]
    with pytest.raises(ValueError, match="3 runs at a time with 1 GPUs each need 3, and this machine has 2; lower"):
        LocalEngine(3, gpus=1.0)


@pytest.mark.parametrize(
    ("jobs", "gpus", "devices"),
    [(5, 0.3, "00011"), (4, 0.4, "0011"), (10, 0.1, "0000000000"), (2, 1.0, "01")],
)
def test_no_gpu_has_more_runs_than_fit_on_it(monkeypatch, jobs, gpus, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    engine = LocalEngine(jobs, gpus)
    assert [engine._devices_of(place)["CUDA_VISIBLE_DEVICES"] for place in range(jobs)] == [*devices]
    with pytest.raises(ValueError, match="13 runs at a time with 0.3 GPUs each need 5, and this machine has 4"):
        LocalEngine(13, 0.3)


def test_gpus_are_asked_for_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "gpus_here", lambda: [])
    arguments = ["--agents", "bc", "--num-gpus", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="need 1, and this machine has 0"):
        run.main(run.parse(arguments))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".sweep.lock"]


def test_two_commands_never_work_on_one_sweep(tmp_path):
    out = tmp_path / "a sweep"
    with (
        exclusive(out / ".sweep.lock"),
        pytest.raises(BlockingIOError, match=r"; wait for it: python -m sorl.sweep status '\S*/a sweep'\.$"),
    ):
        run.main(run.parse(["--agents", "bc", "--out", str(out)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "auto"], "--address is that of a Ray cluster; add --engine ray"),
        (["--jobs", "0"], "jobs is 0"),
        (["--num-gpus", "2"], "num_gpus is 2.0; give a number from 0 to 1"),  # a run would leave one idle
    ],
)
def test_engines_that_contradict_themselves_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        run.parse(arguments)


def test_a_sweep_without_finished_runs_has_empty_tables(tmp_path):
    from .test_grid import SMALL, expand, write_plan

    write_plan(tmp_path, SMALL, expand(SMALL), extend=False)
    assert "no score" in results.write_results(tmp_path)
    assert (tmp_path / "results.csv").read_text().splitlines() == [",".join(results.FIELDS)]
