"""An episode is decided by its seed, wherever and beside whatever it is played; workers answer and end."""

import contextlib
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from multiprocessing import Pipe

import gymnasium
import numpy as np
import pytest

from sorl.environments.ogbench import OgbenchEnvironment
from sorl.environments.pool import EnvironmentPool, EnvironmentWorkerError
from sorl.environments.serial import SerialEnvironments
from sorl.environments.worker import serve

from .stepping import CUBE, step


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
            stepped = environments.step_wait(1)
            assert stepped is not None
            done, outcome = stepped
            assert len(done) >= 1 and not found.keys() & set(done.tolist())
            found |= zip(done.tolist(), outcome.observations, strict=True)
        np.testing.assert_array_equal([found[slot] for slot in range(3)], first.observations)
        # A step that is given up leaves nothing behind.
        environments.step_async(slots, -actions)
        environments.abandon()
        environments.reset(slots, slots)
        np.testing.assert_array_equal(step(environments, slots, actions).observations, first.observations)


def test_another_thread_can_end_a_wait_for_steps():
    with EnvironmentPool(CUBE, workers=1) as pool:
        pool.reset(np.arange(1), np.arange(1))
        for _ in range(3):
            pool.wake()  # many are as good as one
        assert pool.step_wait(1) is None  # nothing is under way, so only being woken can end it
        threading.Timer(0.1, pool.wake).start()
        assert pool.step_wait(1) is None
        outcome = step(pool, np.arange(1), np.zeros((1, 5), np.float32))
        assert outcome.observations.shape == (1, 28)
    pool.wake()  # of a closed pool


def test_a_dead_worker_is_one_clear_error():
    with EnvironmentPool(CUBE, workers=2) as pool:
        pool.kill()
        with pytest.raises(EnvironmentWorkerError, match="died; give fewer workers if memory ran out"):
            pool.sizes()


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
    assert re.fullmatch(r"ValueError: first second \(line \d+ of test_pool.py\)", ours.recv().message)
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
