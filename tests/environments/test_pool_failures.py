"""Workers that hang, die or fail are named, and all processes of their pool end."""

import errno
import itertools
import os
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

from sorl.environments import pool as environment_pool
from sorl.environments.names import Task
from sorl.environments.pool import EnvironmentPool, EnvironmentWorkerError

from .. import scripted_simulator
from .stepping import CUBE, step


@pytest.fixture
def fault(tmp_path, monkeypatch):
    """The file that says what goes wrong in the workers."""
    return scripted_simulator.install(tmp_path, monkeypatch, Task.parse(CUBE).gymnasium_id)


SLOTS = np.arange(2)


def begin(step_timeout=environment_pool.STEP_TIMEOUT):
    """A pool of two whose episodes have begun; from then on it has the time-out."""
    pool = EnvironmentPool(CUBE, workers=2)
    pool.reset(SLOTS, SLOTS)
    pool._step_timeout = step_timeout
    return pool


def assert_nothing_is_left_of(pool):
    """No process of its group runs or is stopped any more, once the system has carried out the kills."""
    assert pool.closed
    deadline = time.monotonic() + 30
    while found := states_of(pool._processes.pid):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def states_of(group):
    """The states of a group's processes, without those that only wait to be reaped because their parent was killed."""
    found = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return [
        state for row in found.splitlines() for pgid, state in [row.split()] if int(pgid) == group and state[0] != "Z"
    ]


def test_a_hung_worker_is_named_and_all_are_ended(fault):
    pool = begin(step_timeout=0.3)
    os.kill(pool._pids[1], signal.SIGSTOP)
    worker = rf"Worker 1 of {CUBE} \(process {pool._pids[1]}\)"
    with pytest.raises(EnvironmentWorkerError, match=rf"^{worker} did not answer within 0\.3 seconds and was killed"):
        step(pool, SLOTS, np.zeros((2, 2), np.float32))
    assert_nothing_is_left_of(pool)


@pytest.mark.parametrize(("method", "arguments"), [("sizes", ()), ("reset", (SLOTS, SLOTS))])
def test_every_call_has_the_time_out(fault, method, arguments):
    pool = begin(step_timeout=0.3)
    os.killpg(pool._processes.pid, signal.SIGSTOP)
    with pytest.raises(EnvironmentWorkerError, match="^Worker 0 .* did not answer within 0.3 seconds"):
        getattr(pool, method)(*arguments)
    assert_nothing_is_left_of(pool)


def test_an_environment_that_never_returns_is_a_hung_worker(fault):
    pool = begin(step_timeout=0.3)
    fault.write_text("hang")
    with pytest.raises(EnvironmentWorkerError, match="did not answer within 0.3 seconds"):
        step(pool, SLOTS, np.zeros((2, 2), np.float32))
    assert_nothing_is_left_of(pool)


def test_a_start_that_hangs_has_a_time_out_of_its_own(fault, monkeypatch):
    monkeypatch.setattr(environment_pool, "START_TIMEOUT", 0.5)
    pool = EnvironmentPool(CUBE, workers=2, step_timeout=0.1)
    os.kill(pool._processes.pid, signal.SIGSTOP)
    process = rf"The process that starts the workers of {CUBE} \(process {pool._processes.pid}\)"
    with pytest.raises(EnvironmentWorkerError, match=rf"^{process} did not start within 0\.5 seconds"):
        pool.sizes()
    assert_nothing_is_left_of(pool)


def test_only_the_pools_own_waits_count(fault, monkeypatch):
    """Neither the time between two calls counts nor, beyond a slice, that for which the whole computer slept."""
    hours = itertools.count(0.0, 3600.0)
    with begin() as pool:
        monkeypatch.setattr(environment_pool.time, "monotonic", lambda: next(hours))
        pool.step_async(SLOTS, np.zeros((2, 2), np.float32))
        found = pool.step_wait(2)
        assert found is not None and sorted(found[0].tolist()) == [0, 1]
        pool.reset(SLOTS, SLOTS)
        monkeypatch.undo()


@pytest.mark.parametrize("stopped", ["worker", "all"])
def test_closing_ends_what_is_stopped(fault, stopped):
    pool = begin()
    if stopped == "all":
        os.killpg(pool._processes.pid, signal.SIGSTOP)
    else:
        os.kill(pool._pids[0], signal.SIGSTOP)
    pool.close(0.5)
    pool.close()
    assert_nothing_is_left_of(pool)


def test_a_worker_that_dies_while_it_steps_is_named(fault):
    pool = begin()
    pids = dict(pool._pids)
    fault.write_text("die")
    with pytest.raises(EnvironmentWorkerError, match=rf"^Worker \d of {CUBE} \(process ({pids[0]}|{pids[1]})\) died"):
        step(pool, SLOTS, np.zeros((2, 2), np.float32))
    assert_nothing_is_left_of(pool)


def test_an_environment_that_exits_is_told_like_one_that_raises(fault):
    pool = begin()
    fault.write_text("exit")
    with pytest.raises(EnvironmentWorkerError, match="SystemExit: 4"):
        step(pool, SLOTS, np.zeros((2, 2), np.float32))
    assert_nothing_is_left_of(pool)


def test_a_worker_that_fails_between_two_calls_says_why(fault, capfd):
    pool = begin()
    pool._connections[0].send("no call")
    with pytest.raises(EnvironmentWorkerError, match="Worker 0 .* died"):
        pool.reset(SLOTS, SLOTS)
    assert_nothing_is_left_of(pool)
    assert "ValueError: too many values to unpack" in capfd.readouterr().err


def test_another_thread_can_end_a_wait_for_a_hung_worker(fault):
    pool = begin()
    os.kill(pool._pids[0], signal.SIGSTOP)
    pool.step_async(SLOTS, np.zeros((2, 2), np.float32))
    threading.Timer(0.3, pool.kill).start()
    with pytest.raises(EnvironmentWorkerError, match="died"):
        pool.step_wait(2)
    assert_nothing_is_left_of(pool)


def test_an_exception_ends_the_pool_at_once_although_a_worker_is_stopped(fault):
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), begin() as pool:
        os.kill(pool._pids[0], signal.SIGSTOP)
        pool.step_async(SLOTS, np.zeros((2, 2), np.float32))
        start = time.monotonic()
        try:
            raise KeyboardInterrupt
        finally:
            pool.abandon()
    assert time.monotonic() - start < environment_pool.PATIENCE
    assert_nothing_is_left_of(pool)


def test_workers_execute_nothing_from_the_current_directory(fault, tmp_path, monkeypatch):
    directory = tmp_path / "current"
    directory.mkdir()
    for name in ("selectors", "ogbench", "numpy"):
        (directory / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\n")
    monkeypatch.chdir(directory)
    with EnvironmentPool(CUBE, workers=1) as pool:
        assert pool.sizes() == (2, 2)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_time_outs_that_are_none_are_refused(seconds):
    with pytest.raises(ValueError, match=f"step_timeout is {seconds}; give a number of seconds > 0"):
        EnvironmentPool(CUBE, step_timeout=seconds)


@pytest.mark.parametrize(
    "error, remedy",
    [
        ((errno.EMFILE, "Too many open files"), "give fewer workers"),
        ((errno.EACCES, "Permission denied", "/opt/python"), "check that you may execute /opt/python"),
    ],
)
def test_workers_that_cannot_be_started_are_one_sentence(monkeypatch, error, remedy):
    def refuses(*_, **__):
        raise OSError(*error)

    monkeypatch.setattr(subprocess, "Popen", refuses)
    said = rf"^2 workers of {CUBE} cannot be started \({error[1]}\); {remedy}\.$"
    with pytest.raises(EnvironmentWorkerError, match=said):
        EnvironmentPool(CUBE, workers=2)
