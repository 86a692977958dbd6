import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig
from sorl.convert.convert import convert
from sorl.data import load_logs
from sorl.data.minari.source import Minari
from sorl.data.recorded import checks
from sorl.data.recorded.origin import refuse_other_order
from sorl.data.sources import absolute, user_source
from sorl.environments.minari_sets import directory_of, reference_scores
from sorl.environments.named import named_environment
from sorl.environments.pool import EnvironmentPool
from sorl.runs.run import Run


minari = pytest.importorskip("minari")
pytest.importorskip("h5py")


class Parts(gymnasium.ObservationWrapper):
    """Pendulum's observation as a dictionary, with a picture."""

    def __init__(self, env):
        super().__init__(env)
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Dict(
            {
                "angle": box(-1, 1, (2,), np.float32),
                "camera": box(0, 255, (4, 4, 3), np.uint8),
                "inner": gymnasium.spaces.Dict({"speed": box(-8, 8, (1,), np.float32)}),
            }
        )

    def observation(self, observation):
        camera = np.full((4, 4, 3), 7, np.uint8)
        return {"angle": observation[:2], "camera": camera, "inner": {"speed": observation[2:]}}


class EndsEarly(gymnasium.Wrapper):
    """Terminates in the third step of every second episode."""

    count = steps = 0

    def reset(self, **options):
        self.count, self.steps = self.count + 1, 0
        return self.env.reset(**options)

    def step(self, action):
        observation, reward, _, truncated, info = self.env.step(action)
        self.steps += 1
        return observation, reward, self.count % 2 == 0 and self.steps == 3, truncated, info


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return tmp_path / "sets"


def record(name, wrap=(), episodes=3, **options):
    """Records episodes of Pendulum with Minari's own collector; **returns** what the environment gave."""
    made = gymnasium.make("Pendulum-v1", max_episode_steps=5)
    for wrapper in wrap:
        made = wrapper(made)
    collector, seen = minari.DataCollector(made), []
    collector.action_space.seed(0)
    for number in range(episodes):
        observation, _ = collector.reset(seed=number)
        steps, done = [observation], False
        rewards, actions, flags = [], [], []
        while not done:
            actions.append(collector.action_space.sample())
            observation, reward, terminated, truncated, _ = collector.step(actions[-1])
            steps.append(observation)
            rewards.append(reward)
            flags.append((terminated, truncated))
            done = terminated or truncated
        seen.append((steps, np.array(actions), np.array(rewards), flags))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the collector asks for an author and the like
        collector.create_dataset(name, algorithm_name="random", **options)
        collector._tmp_dir.cleanup()  # of the next data set, which is not recorded
    return seen


def test_every_number_and_both_kinds_of_ends_stay(home):
    seen = record("pendulum/early-v0", [EndsEarly])
    found = list(checks.episodes(Minari(Path("pendulum/early-v0")).recording()))
    for episode, (steps, actions, rewards, flags) in zip(found, seen, strict=True):
        np.testing.assert_array_equal(episode.observations, np.stack(steps), strict=True)
        np.testing.assert_array_equal(episode.actions, actions, strict=True)
        np.testing.assert_array_equal(episode.rewards, rewards)
        assert [*zip(episode.terminated, [False] * (len(flags) - 1) + [episode.truncated], strict=True)] == flags
    assert [len(one.actions) for one in found] == [5, 3, 5]
    assert [(bool(one.terminated[-1]), one.truncated) for one in found] == [(False, True), (True, False), (False, True)]


def test_parts_of_a_dictionary_are_concatenated_in_the_stated_order(home):
    seen = record("pendulum/parts-v0", [Parts])
    recording = Minari(Path("pendulum/parts-v0")).recording()
    assert recording.observation_names == ("angle[0]", "angle[1]", "inner/speed")
    assert recording.left_out == ("camera",)
    chosen = Minari(Path("pendulum/parts-v0"), observation_keys=("inner/speed", "angle"))
    first = next(checks.episodes(chosen.recording()))
    expected = [np.concatenate([one["inner"]["speed"], one["angle"]]) for one in seen[0][0]]
    np.testing.assert_array_equal(first.observations, np.stack(expected), strict=True)
    named = "minari:pendulum/parts-v0"  # the environment gives the observations in the same order
    assert (recording.environment, chosen.recording().environment) == (named, f"{named}[inner/speed,angle]")
    with pytest.raises(ValueError, match="camera of .* is an image or no array of numbers.*choose among angle, in"):
        Minari(Path("pendulum/parts-v0"), observation_keys=("camera",)).recording()


def test_an_environment_that_may_give_the_parts_in_another_order_is_refused(home, tmp_path):
    record("pendulum/parts-v0", [Parts])
    named, keys = "minari:pendulum/parts-v0", ("inner/speed", "angle")
    chosen = Minari(Path("pendulum/parts-v0"), observation_keys=keys)
    convert(chosen.recording(), tmp_path / "logs.npz", quiet=True)
    for loaded in (chosen.load(), load_logs(tmp_path / "logs.npz")):
        for fitting in (f"{named}[inner/speed,angle]", "gymnasium:Pendulum-v1"):
            refuse_other_order(fitting, loaded.provenance)
        with pytest.raises(ValueError, match=r"\[inner/speed,angle\], which minari:.*-v0 may .* another order"):
            refuse_other_order(named, loaded.provenance)
        options = DataConfig(path=tmp_path / "logs.npz"), EvaluationConfig(interval=0)
        run = Run(tmp_path, TrainConfig(None, data=options[0], evaluation=options[1]), {}, 0, loaded.provenance)
        assert run.in_environment(f"{named}[inner/speed,angle]").env == f"{named}[inner/speed,angle]"
        with pytest.raises(ValueError, match="another order"):
            run.in_environment(named)
    refuse_other_order(named, Minari(Path("pendulum/parts-v0")).load().provenance)
    for unknown in ({}, {"about": "a text of the user's own"}, {"environment": 3}):
        refuse_other_order(named, unknown)


def test_a_data_set_is_named_by_its_id_or_its_directory(home, monkeypatch, tmp_path):
    record("pendulum/random-v0", episodes=1)
    monkeypatch.chdir(tmp_path)
    for name in ("pendulum/random-v0", "minari:pendulum/random-v0", home / "pendulum/random-v0"):
        assert user_source(name := Path(name)) is Minari
        assert Minari(name).recording().steps == 5
        assert absolute(name) == home / "pendulum/random-v0"
    with pytest.raises(FileNotFoundError, match="no Minari data set pendulum/other-v0 on this machine; fetch it with"):
        Minari(Path("minari:pendulum/other-v0")).recording()
    with pytest.raises(FileNotFoundError, match="There is no file pendulum/other-v0; .* `minari download ID` first"):
        load_logs("pendulum/other-v0")


def test_reference_scores_and_the_environment_are_known(home):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record("pendulum/random-v0", episodes=1, ref_min_score=-9.0, ref_max_score=-1.0, eval_env="Pendulum-v1")
    recording = Minari(Path("pendulum/random-v0")).recording()
    assert recording.reference_scores == (-9.0, -1.0)
    assert recording.environment == "minari:pendulum/random-v0"
    assert reference_scores("minari:pendulum/random-v0[observation]") == (-9.0, -1.0)
    assert reference_scores("gymnasium:Pendulum-v1") is None
    environment = named_environment(recording.environment)
    assert environment.sizes() == (3, 1) and environment.action_range()[1].tolist() == [2.0]
    first = gymnasium.make("Pendulum-v1").reset(seed=3)[0]
    np.testing.assert_array_equal(environment.reset(3), first)


def test_workers_find_the_module_of_a_recorded_environment(home, monkeypatch, tmp_path):
    (tmp_path / "my_pendulum.py").write_text("from gymnasium.envs.classic_control import PendulumEnv\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as Python does for -m, and workers do not: it is the current directory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record("pendulum/random-v0", episodes=1)
    metadata = home / "pendulum/random-v0/data/metadata.json"
    metadata.write_text(metadata.read_text().replace("gymnasium.envs.classic_control.pendulum:", "my_pendulum:"))
    with EnvironmentPool("minari:pendulum/random-v0", workers=1) as pool:
        (first,) = pool.reset(np.array([0]), np.array([3]))
        np.testing.assert_array_equal(first, named_environment(pool.env_name).reset(3))
    del sys.modules["my_pendulum"]


def test_keys_of_an_environments_observations(monkeypatch, tmp_path):
    gymnasium.register("Parts-v0", lambda **_: Parts(gymnasium.make("Pendulum-v1")), max_episode_steps=5)
    try:
        environment = named_environment("gymnasium:Parts-v0[inner/speed,angle]")
        angle, speed = np.split(gymnasium.make("Pendulum-v1").reset(seed=1)[0], [2])
        np.testing.assert_array_equal(environment.reset(1), np.concatenate([speed, angle]))
        with pytest.raises(ValueError, match="has no vector 'camera' in its observations; it has angle, inner/speed"):
            named_environment("gymnasium:Parts-v0[camera]")
    finally:
        gymnasium.registry.pop("Parts-v0")


def test_a_name_that_cannot_be_looked_up_is_no_set(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert directory_of("x" * 300) is None  # longer than a file's name may be
