"""Gymnasium's environments: seeded, bounded, judged by their own success, and refused where they do not fit."""

import sys

import gymnasium
import numpy as np
import pytest

from sorl.environments.gymnasium import GymnasiumEnvironment
from sorl.environments.interface import Outcome
from sorl.environments.named import named_environment
from sorl.environments.ogbench import OgbenchEnvironment
from sorl.environments.pool import EnvironmentPool, EnvironmentWorkerError
from sorl.environments.serial import SerialEnvironments


TOYS = "tests.environments.toys"
PENDULUM = "gymnasium:Pendulum-v1"
SLOTS = np.arange(2)


def test_names_with_a_colon_are_gymnasiums_and_others_ogbenchs():
    assert isinstance(named_environment(PENDULUM), GymnasiumEnvironment)
    assert isinstance(named_environment("cube-single-play-singletask-task1-v0"), OgbenchEnvironment)


def test_an_episode_is_the_one_that_gymnasium_plays_with_its_seed():
    environment, alone = GymnasiumEnvironment(PENDULUM), gymnasium.make("Pendulum-v1")
    assert environment.sizes() == (3, 1)
    assert [bound.tolist() for bound in environment.action_range()] == [[-2.0], [2.0]]
    expected, _ = alone.reset(seed=5)
    np.testing.assert_array_equal(environment.reset(5), expected)
    for count, action in enumerate(np.random.default_rng(0).uniform(-2, 2, (200, 1)).astype(np.float32), start=1):
        expected, reward, *_ = alone.step(action)
        observation, found, success, done = environment.step(action)
        np.testing.assert_array_equal(observation, expected)
        assert (found, success, done) == (reward, None, count == 200)  # the registered limit of steps


def test_every_generator_is_the_episodes_own():
    one, other = (GymnasiumEnvironment(f"{TOYS}:Reach-v0") for _ in range(2))
    action = np.full(1, 0.5)
    np.random.seed(3)
    expected = np.random.uniform()
    np.random.seed(3)
    alone = [one.reset(7), *(one.step(action)[0] for _ in range(3))]
    beside = [other.reset(7)]
    one.reset(8)
    for _ in range(3):
        one.step(action)
        beside.append(other.step(action)[0])
    np.testing.assert_array_equal(beside, alone)
    assert np.all(one.reset(8) != alone[0])
    assert np.random.uniform() == expected  # the caller's generator is left alone


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Robotics", True), ("Empty", True), ("Plain", None)],
    ids=["is_success", "success without a value", "none reported"],
)
def test_success_is_what_the_environment_reports(name, expected):
    environment = GymnasiumEnvironment(f"{TOYS}:{name}-v0")
    environment.reset(0)
    assert environment.step(np.zeros(1))[2] is expected


def test_a_step_of_several_tells_reported_successes_from_others():
    seen = np.zeros(1)
    outcome = Outcome.of([(seen, 1.0, True, False), (seen, 2.0, False, False), (seen, 3.0, None, True)])
    assert outcome.success.tolist() == [True, False, False]
    assert outcome.has_success.tolist() == [True, True, False]
    assert (outcome.rewards.tolist(), outcome.done.tolist()) == ([1.0, 2.0, 3.0], [False, False, True])


def test_workers_play_what_one_process_plays(tmp_path, monkeypatch):
    (tmp_path / "my_toys.py").write_text(f"import {TOYS}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as Python does for -m, and workers do not: it is the current directory
    name = "my_toys:Reach-v0"
    serial = SerialEnvironments(name, environments=2)
    actions = np.random.default_rng(0).uniform(-2, 2, (8, 2, 1)).astype(np.float32)
    ends = []
    with EnvironmentPool(name, workers=2) as pool:
        assert (len(pool), pool.sizes(), pool.success_timing) == (2, serial.sizes(), serial.success_timing)
        np.testing.assert_array_equal(pool.action_range(), serial.action_range())
        np.testing.assert_array_equal(pool.reset(SLOTS, SLOTS + 4), serial.reset(SLOTS, SLOTS + 4))
        for action in actions:
            found = []
            for environments in (pool, serial):
                environments.step_async(SLOTS, action)
                stepped = environments.step_wait(2)
                assert stepped is not None
                slots, outcome = stepped
                found.append([column[np.argsort(slots)] for column in outcome])
            for one, other in zip(*found, strict=True):
                np.testing.assert_array_equal(one, other)
            ends.append(found[0][-1].tolist())
        assert ends == [[False, False]] * 7 + [[True, True]]
    del sys.modules["my_toys"]


def test_pictures_are_those_of_the_environment():
    environment = SerialEnvironments(f"{TOYS}:Reach-v0", pictures=True)[0]
    environment.reset(0)
    np.testing.assert_array_equal(environment.render(), np.full((4, 6, 3), 10, np.uint8))


@pytest.mark.parametrize(
    ("picture", "error", "expected"),
    [
        (
            lambda: {}["camera"],
            RuntimeError,
            r"failed to render: KeyError: 'camera' \(line \d+ of test_gymnasium.py\)\.$",
        ),
        (
            lambda: np.full((4, 6, 3), 0.5),
            ValueError,
            "gave an image of type float64; give whole numbers from 0 to 255",
        ),
        (lambda: None, ValueError, "gave an image of type object; give whole numbers"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(picture, error, expected, monkeypatch):
    environment = GymnasiumEnvironment(f"{TOYS}:Reach-v0", pictures=True)
    environment.reset(0)
    monkeypatch.setattr(f"{TOYS}.Reach.render", lambda self: picture())
    with pytest.raises(error, match=f"^{TOYS}:Reach-v0 {expected}"):
        environment.render()


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("gymnasium:", ValueError, "^The environment is 'gymnasium:'; give MODULE:ID, such as gymnasium:Pendulum-v1"),
        ("my envs:Reach-v0", ValueError, "give MODULE:ID"),
        ("gymnasium:Pendulum-v7", ValueError, "no environment 'Pendulum-v7' after importing gymnasium .*v7.*; give"),
        ("gymnasium:Pendulums-v1", ValueError, "no environment 'Pendulums-v1' after importing gymnasium"),
        ("no_such_module:Reach-v0", ImportError, "no module 'no_such_module' .*; give a module in a directory that"),
        (f"{TOYS}.more:Reach-v0", ImportError, "no module 'tests.environments.toys.more'"),
        (f"{TOYS}:Endless-v0", ValueError, "has no limit of steps.*; register it with max_episode_steps"),
        (f"{TOYS}:Images-v0", ValueError, r"observations of \S+ are a box of shape \[8, 8, 3\] and type uint8, but"),
        (f"{TOYS}:Table-v0", ValueError, r"a box of shape \[2, 2\] and type float64.*FlattenObservation"),
        (f"{TOYS}:Counts-v0", ValueError, r"a box of shape \[2\] and type int64.*DtypeObservation"),
        (f"{TOYS}:Levers-v0", ValueError, r"actions of .* are a box of shape \[1, 2\].*TransformAction"),
        (f"{TOYS}:Words-v0", ValueError, "observations of .* are a dictionary of (hand, goal|goal, hand), but"),
        (f"{TOYS}:Buttons-v0", ValueError, "actions of .* of the kind Discrete.*; choose an environment with contin"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_sentence(name, error, expected):
    with pytest.raises(error, match=expected) as raised:
        SerialEnvironments(name)[0]
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Broken", "gave an observation that is not finite: column 0 is nan; repair"),
        ("Ragged", r"an observation of shape \[2\], but its space says \[1\]; repair"),
        ("Named", r"gave the observation array\(\{'hand': 0.0\}, dtype=object\), which is no array of numbers"),
        ("Halfway", "gave the success 0.3; give True or False, or leave it out"),
        ("Wordy", "gave the success 'no'; give True or False, or leave it out"),
        ("Unpriced", "gave the reward 'much'; give a finite number"),
        ("Endlessly-Good", "gave the reward inf; give a finite number"),
    ],
)
def test_what_an_environment_gives_is_checked(name, expected):
    environment = GymnasiumEnvironment(f"{TOYS}:{name}-v0")
    environment.reset(0)
    with pytest.raises(ValueError, match=expected):
        environment.step(np.zeros(1))


def test_a_module_that_imports_jax_is_refused_by_workers(tmp_path, monkeypatch):
    entry = "gymnasium.envs.classic_control:PendulumEnv"
    (tmp_path / "fast_toys.py").write_text(
        "import gymnasium, sys, types\nsys.modules['jax'] = types.ModuleType('jax')\n"
        f"gymnasium.register('Fast-v0', {entry!r}, max_episode_steps=5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with EnvironmentPool("fast_toys:Fast-v0", workers=1) as pool:
        with pytest.raises(EnvironmentWorkerError, match="ImportError: the module of fast_toys:Fast-v0 imports jax"):
            pool.sizes()


def test_a_module_that_lacks_another_names_it(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import a_module_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match="module needy of needy:A-v0 needs a_module_that_is_missing, which is missing"
    ):
        SerialEnvironments("needy:A-v0")[0]


@pytest.mark.parametrize("make", [SerialEnvironments, EnvironmentPool])
def test_success_after_a_step_is_ogbenchs(make):
    with pytest.raises(ValueError, match="post is for OGBench's environments, and gymnasium:Pendulum-v1 judges"):
        make(PENDULUM, success_timing="post")


def test_a_pool_names_a_missing_module_before_it_starts_processes():
    with pytest.raises(ImportError, match="There is no module 'no_such_module'"):
        EnvironmentPool("no_such_module:Reach-v0")
