"""An episode is decided by its seed, wherever and beside whatever it is played; workers answer, fail and end."""

import contextlib
import errno
import importlib.util
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from multiprocessing import Pipe

import gymnasium
import numpy as np
import pytest

from sorl.environments import pool as environment_pool
from sorl.environments.interface import Outcome
from sorl.environments.names import Task
from sorl.environments.ogbench import OgbenchEnvironment
from sorl.environments.pool import EnvironmentPool, EnvironmentWorkerError
from sorl.environments.serial import SerialEnvironments
from sorl.environments.worker import serve

from .. import scripted_simulator


CUBE = "cube-single-play-singletask-task1-v0"


class DrawsFromEverything(gymnasium.Env):
    """Draws from all the generators that OGBench's environments use, in `step` too."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)

    @property
    def action_space(self):  # type: ignore[override]
        return gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action):
        return self._draw(), 0.0, False, False, {"success": 0.0}

    def _draw(self):
        return np.array([np.random.uniform(), self.np_random.uniform(), self.action_space.sample()[0]])


@pytest.fixture
def random_environments(monkeypatch):
    monkeypatch.setattr(gymnasium, "make", lambda *_, **__: DrawsFromEverything())
    return [OgbenchEnvironment(CUBE, "pre") for _ in range(2)]


def episode(environment, seed, steps):
    """Observations of an episode with actions that are the same for the same seed."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, environment.sizes()[1])).astype(np.float32)
    return [environment.reset(seed)] + [environment.step(action)[0] for action in actions]


def step(environments, slots, actions):
    """One step in each of the slots, in the order asked for."""
    environments.step_async(slots, actions)
    done, outcome = environments.step_wait(len(slots))
    order = [done.tolist().index(slot) for slot in slots]
    return Outcome(*(column[order] for column in outcome))


def test_every_generator_is_the_episodes_own(random_environments):
    one, other = random_environments
    alone = episode(one, 7, 3)
    assert len({value for observation in alone for value in observation}) == 12  # nothing is drawn twice
    # The same episode, step by step beside another one.
    beside = [other.reset(7)]
    one.reset(8)
    for _ in range(3):
        one.step(np.zeros(2, np.float32))
        beside.append(other.step(np.zeros(2, np.float32))[0])
    np.testing.assert_array_equal(beside, alone)
    assert not np.any(np.equal(episode(one, 8, 3), alone))


def test_the_callers_generator_is_left_alone(random_environments):
    np.random.seed(3)
    expected = np.random.uniform(size=4)
    np.random.seed(3)
    found = [np.random.uniform()]
    for seed in range(3):
        episode(random_environments[0], seed, 2)
        found.append(np.random.uniform())
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def cubes():
    return SerialEnvironments(CUBE, environments=2)


def test_cube_episode_depends_on_its_seed_alone(cubes):
    first = episode(cubes[0], 5, 60)
    episode(cubes[1], 6, 20)
    np.testing.assert_array_equal(episode(cubes[1], 5, 60), first)
    np.testing.assert_array_equal(episode(cubes[0], 5, 60), first)
    assert np.any(episode(cubes[0], 6, 0)[0] != first[0])


@pytest.mark.parametrize(("timing", "expected"), [("pre", [False, True]), ("post", [True])])
def test_success_is_judged_before_or_after_the_step(timing, expected):
    environment = OgbenchEnvironment(CUBE, timing)
    environment.reset(0)
    unwrapped = environment._environment.unwrapped
    unwrapped._data.joint("object_joint_0").qpos[:3] = unwrapped.cur_task_info["goal_xyzs"][0]
    found = [environment.step(np.zeros(5, np.float32)) for _ in expected]
    assert [success for _, _, success, _ in found] == expected
    assert [done for _, _, _, done in found] == expected
    assert found[-1][1] == 0.0


def test_an_episode_ends_at_the_limit_of_steps(cubes):
    cubes.reset(np.array([0]), np.array([1]))
    done = [step(cubes, np.array([0]), np.zeros((1, 5), np.float32)).done[0] for _ in range(200)]
    assert done == [False] * 199 + [True]


def test_pool_plays_what_one_process_plays_in_the_order_asked_for(cubes):
    slots, seeds = np.array([1, 0]), np.array([11, 12])
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 2, 5)).astype(np.float32)
    with EnvironmentPool(CUBE, workers=3) as pool:
        assert len(pool) == 3
        assert pool.sizes() == cubes.sizes() == (28, 5)
        np.testing.assert_array_equal(pool.reset(slots, seeds), cubes.reset(slots, seeds))
        for action in actions:
            for found, expected in zip(step(pool, slots, action), step(cubes, slots, action), strict=True):
                np.testing.assert_array_equal(found, expected)
                assert found.dtype == expected.dtype


def test_an_exception_in_a_worker_is_one_clear_error():
    with EnvironmentPool(CUBE, workers=2) as pool:
        pool.reset(np.arange(2), np.arange(2))
        with pytest.raises(
            EnvironmentWorkerError, match=rf"Worker [01] of {CUBE} \(process \d+\) failed: \w+: "
        ) as raised:
            step(pool, np.arange(2), np.zeros((2, 2), np.float32))
        assert "Traceback" in raised.value.__notes__[0]
        with pytest.raises(EnvironmentWorkerError, match="is closed; make a new one"):
            pool.reset(np.arange(2), np.arange(2))


def test_an_environment_that_cannot_be_made_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "ogbench.py").write_text("raise ImportError('half installed')")
    monkeypatch.syspath_prepend(tmp_path)  # a pool hands its own path on to the workers
    with EnvironmentPool(CUBE, workers=2) as pool:
        with pytest.raises(EnvironmentWorkerError, match="failed: ImportError: half installed"):
            pool.sizes()


@pytest.mark.parametrize("make", [partial(SerialEnvironments, environments=3), partial(EnvironmentPool, workers=3)])
def test_steps_are_awaited_a_few_at_a_time_and_can_be_abandoned(make):
    with contextlib.ExitStack() as stack:
        environments = make(CUBE)
        if isinstance(environments, EnvironmentPool):
            stack.enter_context(environments)
        slots, actions = np.arange(3), np.full((3, 5), 0.5, np.float32)
        environments.reset(slots, slots)
        first = step(environments, slots, actions)
        environments.reset(slots, slots)
        environments.step_async(slots, actions)
        found = {}
        while len(found) < 3:
            done, outcome = environments.step_wait(1)
            assert len(done) >= 1 and not found.keys() & set(done.tolist())
            found |= zip(done.tolist(), outcome.observations, strict=True)
        np.testing.assert_array_equal([found[slot] for slot in range(3)], first.observations)
        # A step that is given up leaves nothing behind.
        environments.step_async(slots, -actions)
        environments.abandon()
        environments.reset(slots, slots)
        np.testing.assert_array_equal(step(environments, slots, actions).observations, first.observations)


def test_a_dead_worker_is_one_clear_error():
    with EnvironmentPool(CUBE, workers=2) as pool:
        pool.kill()
        with pytest.raises(EnvironmentWorkerError, match="died; give fewer workers if memory ran out"):
            pool.sizes()


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
    while found := states_of(pool._template.pid):
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
    os.killpg(pool._template.pid, signal.SIGSTOP)
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
    os.kill(pool._template.pid, signal.SIGSTOP)
    process = rf"The process that starts the workers of {CUBE} \(process {pool._template.pid}\)"
    with pytest.raises(EnvironmentWorkerError, match=rf"^{process} did not start within 0\.5 seconds"):
        pool.sizes()
    assert_nothing_is_left_of(pool)


def test_only_the_pools_own_waits_count(fault, monkeypatch):
    """Neither the time between two calls counts nor, beyond a slice, that for which the whole computer slept."""
    hours = itertools.count(0.0, 3600.0)
    with begin() as pool:
        monkeypatch.setattr(environment_pool.time, "monotonic", lambda: next(hours))
        pool.step_async(SLOTS, np.zeros((2, 2), np.float32))
        assert sorted(pool.step_wait(2)[0].tolist()) == [0, 1]
        pool.reset(SLOTS, SLOTS)
        monkeypatch.undo()


@pytest.mark.parametrize("stopped", ["worker", "all"])
def test_closing_ends_what_is_stopped(fault, stopped):
    pool = begin()
    if stopped == "all":
        os.killpg(pool._template.pid, signal.SIGSTOP)
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


def test_more_workers_than_the_system_has_room_for_are_one_sentence(monkeypatch):
    def refuses(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(environment_pool.subprocess, "Popen", refuses)
    with pytest.raises(EnvironmentWorkerError, match=f"2 workers of {CUBE} cannot be started .*; give fewer workers"):
        EnvironmentPool(CUBE, workers=2)


@pytest.mark.parametrize("make", [lambda: EnvironmentPool(CUBE), lambda: OgbenchEnvironment(CUBE, "pre")])
def test_a_missing_simulator_says_what_to_install(monkeypatch, make):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ogbench" else found(name))
    with pytest.raises(ImportError, match=r"need ogbench, not installed here; run pip install 'sorl\[ogbench\]'"):
        make()


@pytest.mark.parametrize("make", [SerialEnvironments, EnvironmentPool])
def test_unknown_environments_are_refused(make):
    with pytest.raises(ValueError, match="No environment is named 'cube-single'"):
        make("cube-single")


def test_pools_of_nothing_are_refused():
    with pytest.raises(ValueError, match="0 environments cannot play; give at least 1"):
        EnvironmentPool(CUBE, workers=0)


class TwoLines:
    """What cannot be added, as two lines say."""

    def __add__(self, other):
        raise ValueError("first\n  second")


class Adder(OgbenchEnvironment):
    def __init__(self):
        pass

    def add(self, a, b):
        return a + b


def test_worker_loop_answers_reports_errors_and_ends_with_its_pipe():
    ours, theirs = Pipe()
    thread = threading.Thread(target=serve, args=(theirs, Adder()), daemon=True)
    thread.start()
    for numbers in ((2, 3), (2, "3"), (4, 5), (TwoLines(), 0)):
        ours.send(("add", numbers))
    assert ours.poll(timeout=60)
    assert ours.recv() == 5
    assert ours.recv().message.startswith("TypeError: unsupported operand")
    assert ours.recv() == 9
    assert ours.recv().message == "ValueError: first second"
    ours.close()
    thread.join(timeout=60)
    assert not thread.is_alive()


# Note that a program without a `__main__` guard may start a pool.
SIGNALLED = """
import os, signal
import numpy as np
from sorl.environments.pool import EnvironmentPool

pool = EnvironmentPool({env!r}, workers=2)
first = pool.reset(np.arange(2), np.arange(2))
for name in (signal.SIGINT, signal.SIGUSR1):
    signal.signal(name, signal.SIG_IGN)
    os.killpg(0, name)
again = pool.reset(np.arange(2), np.arange(2))
print(np.array_equal(first, again), flush=True)
os.kill(pool._pids[0], signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_leave_signals_to_their_parent_and_die_with_it_even_when_stopped():
    # The workers hold its output open: that it ends means that they have ended, the parent being killed.
    found = run(SIGNALLED.format(env=CUBE), start_new_session=True)
    assert (found.returncode, found.stdout, found.stderr) == (-signal.SIGKILL, "True\n", "")


def test_workers_import_neither_jax_nor_equinox():
    program = f"""
import sys
from sorl.environments.ogbench import OgbenchEnvironment
OgbenchEnvironment({CUBE!r}, "pre").reset(0)
print(sorted({{"jax", "equinox", "optax"}} & set(sys.modules)))
"""
    assert run(program).stdout == "[]\n"


def run(program, **options):
    source = pathlib.Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "MUJOCO_GL": "disable"}
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, **options)
