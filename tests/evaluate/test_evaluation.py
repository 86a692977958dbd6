"""Evaluations play a fixed number of seeded episodes, and give the same whatever they are played on."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import imageio.v3 as imageio
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from jaxtyping import Float

from sorl import Policy, evaluate_policy
from sorl.agents import AbstractActor, Budget, Budgets, Sorl
from sorl.config import presets
from sorl.config.options import TrainConfig
from sorl.data.normalisation import Normalisation
from sorl.environments import named
from sorl.environments.interface import Environment
from sorl.environments.ogbench import OgbenchEnvironment
from sorl.environments.pool import EnvironmentPool
from sorl.environments.serial import SerialEnvironments
from sorl.evaluate import episodes as rollouts, video
from sorl.evaluate.__main__ import Config, main
from sorl.evaluate.episodes import episode_seeds, play
from sorl.runs.run import Run


CUBE = "cube-single-play-singletask-task1-v0"
GOAL = jnp.array([0.425, -0.1, 0.02])  # of this task, in metres


class AbstractMadeUp(AbstractActor):
    """An actor without a template, of any budget."""

    @property
    def budgets(self):
        return Budgets(Budget(), (1, 2, 4, 8), (1, 8), (1,), other_inference_steps=True, other_candidates=True)

    def template(self, observation_size, action_size):
        raise NotImplementedError

    def draw_action(self, action_size, budget, *, key):
        return budget.noise_scale * jax.random.normal(key, (action_size,))


class PickAndPlace(AbstractMadeUp):
    """Feedback that carries the cube to its goal, unless noise gets in the way."""

    noise: float = 0.3

    def act(self, networks: Float[jax.Array, "3"], observation, draws, budget):
        hand, cube = observation[12:15] / 10 + networks, observation[19:22] / 10 + networks
        to_cube, to_goal = cube - hand, GOAL - cube
        near = jnp.linalg.norm(to_cube[:2]) < 0.02
        holding = near & (jnp.abs(to_cube[2]) < 0.02) & (observation[18] > 0.3)
        hover = jnp.where(jnp.linalg.norm(to_cube[:2]) < 0.01, 0.0, 0.1)
        lift = jnp.where(jnp.linalg.norm(to_goal[:2]) > 0.03, 0.1, 0.0)
        move = jnp.where(holding, to_goal.at[2].add(lift), to_cube.at[2].add(hover)) / 0.05
        turn = jnp.arctan2(observation[27], observation[26]) - jnp.arctan2(observation[16], observation[15])
        turn = jnp.where(holding, 0.0, (turn + jnp.pi / 4) % (jnp.pi / 2) - jnp.pi / 4) / 0.3
        grip = jnp.where(holding | (near & (jnp.abs(to_cube[2]) < 0.01)), 1.0, -1.0)
        return jnp.clip(jnp.concatenate([move, turn[None], grip[None]]) + self.noise * draws, -1, 1)


CENTRE = jnp.array([0.425, 0.0, 0.0])  # of the cube's observations


ECHO_TRACES = []


class Echo(AbstractMadeUp):
    """Acts on the first number it sees, so that a scripted environment can tell what the policy was shown."""

    scale: float = 1.0

    def act(self, networks, observation, draws, budget):
        ECHO_TRACES.append(budget)
        return jnp.stack([self.scale * observation[0], draws[1]])


class Scripted(Environment):
    """An episode of 2 + seed % 5 steps that shows (seed % 100, step) and succeeds at its last step if seed is even."""

    def __init__(self, env_name, success_timing):
        self.actions = []

    def sizes(self):
        return 2, 2

    def action_range(self):
        return np.full(2, -np.inf), np.full(2, np.inf)

    def reset(self, seed):
        self.seed, self.taken = seed, 0
        return np.array([seed % 100, 0], np.float32)

    def step(self, action):
        self.taken += 1
        last = self.taken == 2 + self.seed % 5
        success = (self.seed % 2 == 0) == last  # that of earlier steps does not count
        return np.array([self.seed % 100, self.taken], np.float32), float(action[0]), success, last


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(named, "OgbenchEnvironment", Scripted)


def identity(observation_size=28, action_size=5):
    return Normalisation.identity(observation_size, action_size)


def echo(scale: Any = 1.0, normalisation=None):
    return Policy(Echo(scale), jnp.zeros(0), normalisation or identity(2, 2))


def hand():
    return Policy(PickAndPlace(), CENTRE, identity())


@pytest.mark.parametrize("side_by_side", [1, 2, 3, 7, 20])
def test_quota_returns_lengths_and_last_success(scripted, side_by_side):
    environments = SerialEnvironments(CUBE, environments=side_by_side)
    found = evaluate_policy(echo(), environments, episodes=7, seed=3)
    seeds = episode_seeds(3, 7)
    np.testing.assert_array_equal(found.episode_seeds, seeds)
    np.testing.assert_array_equal(found.lengths, 2 + seeds % 5)
    np.testing.assert_array_equal(found.success, seeds % 2 == 0)
    np.testing.assert_array_equal(found.returns, seeds % 100 * (2 + seeds % 5))


def test_observations_and_actions_pass_through_the_normalisation(scripted):
    normalisation = Normalisation(
        observation_mean=jnp.array([10.0, 0.0]),
        observation_scale=jnp.array([2.0, 1.0]),
        action_low=jnp.array([0.0, 0.0]),
        action_high=jnp.array([4.0, 4.0]),
    )
    found = evaluate_policy(echo(0.5, normalisation), SerialEnvironments(CUBE), episodes=2)
    seeds = episode_seeds(0, 2)
    action = 2 + 2 * (0.5 * (seeds % 100 - 10) / 2)
    np.testing.assert_allclose(found.returns, action * (2 + seeds % 5), rtol=1e-6)


def test_a_small_variation_on_an_offset_is_seen_as_in_training(scripted, monkeypatch):
    """In single precision 1 + 1e-12 would be 1."""
    reset, step = Scripted.reset, Scripted.step

    def show(numbers):
        return 1 + 1e-12 * numbers.astype(np.float64)

    def shown_step(self, action):
        numbers, *rest = step(self, action)
        return show(numbers), *rest

    monkeypatch.setattr(Scripted, "reset", lambda self, seed: show(reset(self, seed)))
    monkeypatch.setattr(Scripted, "step", shown_step)
    normalisation = Normalisation(
        observation_mean=jnp.ones(2),
        observation_scale=jnp.full(2, 1e-10),
        action_low=-jnp.ones(2),
        action_high=jnp.ones(2),
        observation_mean_remainder=jnp.zeros(2),
    )
    found = evaluate_policy(echo(0.5, normalisation), SerialEnvironments(CUBE), episodes=2)
    seeds = episode_seeds(0, 2)
    np.testing.assert_allclose(found.returns, 0.5 * (seeds % 100) / 100 * (2 + seeds % 5), rtol=1e-3)


def noise_by_episode(side_by_side, first=None):
    """The noise that the policy drew at each step of each of 5 episodes."""
    environments = SerialEnvironments(CUBE, environments=side_by_side)
    moments = play(echo(), environments, episodes=5, seed=3, first=first)
    drawn = {}
    for moment in moments:
        for episode, observation in zip(moment.episodes, moment.outcome.observations, strict=True):
            drawn.setdefault(int(episode), []).append(tuple(observation))
    return drawn


def test_noise_is_a_matter_of_seed_episode_and_own_step(scripted, monkeypatch):
    def step(self, action):  # shows the noise in the action instead
        _, reward, success, last = original(self, action)
        return np.array([action[1], self.taken], np.float32), reward, success, last

    original = Scripted.step
    monkeypatch.setattr(Scripted, "step", step)
    found = noise_by_episode(side_by_side=2)
    for episode, seed in enumerate(episode_seeds(3, 5)):
        for taken in range(2 + seed % 5):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), episode), taken)
            assert found[episode][taken] == (jax.random.normal(key, (2,))[1], taken + 1)
    assert noise_by_episode(side_by_side=5) == found
    assert noise_by_episode(side_by_side=2, first=2) == {episode: found[episode] for episode in (0, 1)}


@pytest.mark.parametrize("side_by_side", [1, 3, 7])
def test_an_episode_always_has_the_same_row_of_a_batch_of_one_size(scripted, monkeypatch, side_by_side):
    def decide(actor, networks, normalisation, budget, key, episodes, steps, observations):
        shown.append((episodes, steps))
        return original(actor, networks, normalisation, budget, key, episodes, steps, observations)

    shown, original = [], rollouts._decide
    monkeypatch.setattr(rollouts, "_decide", decide)
    monkeypatch.setattr(rollouts, "MOST_ROWS", 3)
    environments = SerialEnvironments(CUBE, environments=side_by_side)
    evaluate_policy(echo(), environments, budget=Budget(3), episodes=7)
    assert {episodes.shape for episodes, _ in shown} == {(3,)}
    taken = {(row, episode) for episodes, _ in shown for row, episode in enumerate(episodes)}
    assert taken - {(row, 0) for row in range(3)} == {(episode % 3, episode) for episode in range(1, 7)}


def test_rows_are_few_and_evenly_shared():
    found = [rollouts.batch_rows(episodes) for episodes in (1, 16, 17, 20, 32, 50, 1000)]
    assert found == [1, 16, 9, 10, 16, 13, 16]


def test_episode_seeds_differ_and_do_not_depend_on_their_number():
    np.testing.assert_array_equal(episode_seeds(4, 50)[:10], episode_seeds(4, 10))
    assert len({*episode_seeds(4, 500), *episode_seeds(5, 500)}) == 1000


def film_of(environments, episodes=5):
    """Every observation of every episode, by its number."""
    seen = {episode: [] for episode in range(episodes)}
    for moment in play(hand(), environments, episodes=episodes, seed=1):
        for episode, *row in zip(moment.episodes, *moment.outcome, strict=True):
            seen[int(episode)].append(np.concatenate(row, axis=None))
    return [np.stack(seen[episode]) for episode in range(episodes)]


def test_workers_and_waves_give_what_one_process_gives(monkeypatch):
    monkeypatch.setattr(rollouts, "MOST_ROWS", 2)  # so that episodes share rows
    expected = film_of(SerialEnvironments(CUBE))
    lengths = {len(film) for film in expected}
    assert len(lengths) > 1 and min(lengths) < 200  # some reach the goal, at different times
    for workers in (2, 5):
        with EnvironmentPool(CUBE, workers=workers) as pool:
            found = film_of(pool)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_every_budget_meets_the_same_episodes_and_a_steady_hand_wins_them():
    with EnvironmentPool(CUBE, workers=8) as pool:
        steady = evaluate_policy(hand(), pool, budget=Budget(noise_scale=0.0), episodes=8, seed=2)
        shaky = evaluate_policy(hand(), pool, budget=Budget(noise_scale=4.0), episodes=8, seed=2)
    np.testing.assert_array_equal(steady.episode_seeds, shaky.episode_seeds)
    assert steady.success is not None and shaky.success is not None
    assert steady.success.all() and not shaky.success.any()
    assert set(shaky.lengths) == {200}
    # One is lost in each step but the last, which is judged on the goal reached before it.
    np.testing.assert_array_equal(steady.returns, 1.0 - steady.lengths)
    row = json.loads(json.dumps(steady.row()))
    assert (row["success"], row["successes"], row["episodes"], row["noise_scale"]) == (1.0, 8, 8, 0.0)
    assert (row["success_timing"], row["env"], row["seed"]) == ("pre", CUBE, 2)
    assert row["steps_per_second"] == pytest.approx(steady.lengths.sum() / row["seconds"])
    assert json.loads(json.dumps(steady.per_episode()))["lengths"] == steady.lengths.tolist()


def test_repeated_evaluations_compile_once_whatever_the_hyper_parameters(scripted):
    pool = SerialEnvironments(CUBE, environments=3)
    evaluate_policy(echo(1.0), pool, budget=Budget(2), episodes=3)
    ECHO_TRACES.clear()
    evaluate_policy(echo(0.5), pool, budget=Budget(2), episodes=3, seed=5)
    assert ECHO_TRACES == []
    evaluate_policy(echo(0.5), pool, budget=Budget(4), episodes=3)
    assert ECHO_TRACES == [Budget(4)]


def test_wrong_sizes_counts_and_actions_are_refused(scripted):
    pool = SerialEnvironments(CUBE)
    with pytest.raises(ValueError, match="observations of size 28 and gives actions of size 5, but .* has 2 and 2"):
        evaluate_policy(echo(normalisation=identity()), pool, episodes=1)
    with pytest.raises(ValueError, match="0 episodes says nothing; give at least 1"):
        evaluate_policy(echo(), pool, episodes=0)
    with pytest.raises(FloatingPointError, match="episode 0 at step 0 is not finite"):
        evaluate_policy(echo(jnp.array(jnp.nan)), pool, episodes=1)  # the actor would refuse a number


@pytest.fixture
def run(tmp_path, monkeypatch):
    agent = Sorl(hidden_sizes=(8,), critic_hidden_sizes=(8,))
    train = jax.jit(lambda key: agent.policy(agent.init(28, 5, key=key)))
    policies = {seed: Policy(agent.actor, train(jax.random.key(seed)), identity()) for seed in (3, 5)}
    found = Run(
        tmp_path,
        TrainConfig(env=CUBE, agent=agent, seeds=(3, 5)),
        policies,
        70,
        {"source": "generated", "episodes": 9},
    )
    monkeypatch.setattr(sys.modules[main.__module__], "load_run", lambda path: found)
    return found


def parse(run, *arguments):
    return tyro.cli(Config, args=[str(run.directory), *arguments])


def test_command_writes_a_row_for_every_budget_and_seed(run, capsys):
    summary = main(
        parse(
            run, "--inference-steps", "1", "4", "--candidates", "1", "2", "--episodes", "1", "--success-timing", "post"
        )
    )
    assert [(row["inference_steps"], row["candidates"]) for row in summary] == [(1, 1), (4, 1), (1, 2), (4, 2)]
    printed = capsys.readouterr().out
    assert f"{CUBE} after 70 updates on generated data, 9 episodes; 1 episodes played" in printed
    assert printed.startswith("Playing 4 budgets x 2 seeds x 1 episode: 8 episodes.\nAbout ")
    assert "success judged post-step" in printed
    with (run.directory / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    written = json.loads((run.directory / "evaluation.json").read_text())
    assert len(rows) == len(written["rows"]) == 8
    assert {(row["training_seed"], row["step"], row["success_timing"]) for row in rows} == {
        ("3", "70", "post"),
        ("5", "70", "post"),
    }
    assert written["summary"] == summary
    assert {tuple(row["episode_seeds"]) for row in written["rows"]} == {tuple(episode_seeds(0, 1).tolist())}
    assert not [path for path in run.directory.iterdir() if path.name.startswith(".")]


def test_command_leaves_out_a_bad_seed_or_plays_it_with_its_own_step(run, monkeypatch, capsys):
    found = dataclasses.replace(run, steps={3: 20, 5: 70}, bad_seeds=(3,))
    monkeypatch.setattr(sys.modules[main.__module__], "load_run", lambda path: found)
    budget = ["--inference-steps", "1", "--candidates", "1", "--episodes", "1"]
    played = []
    for seeds in ([], ["--seeds", "3", "5"]):
        main(parse(run, *budget, *seeds))
        rows = json.loads((run.directory / "evaluation.json").read_text())["rows"]
        played.append([(row["training_seed"], row["step"]) for row in rows])
    assert played == [[(5, 70)], [(3, 20), (5, 70)]]
    assert capsys.readouterr().out.count("Left out because losses became non-finite in training: seed 3") == 1


def test_command_films_the_first_seed_at_each_budget(run, monkeypatch, capsys):
    monkeypatch.setattr(OgbenchEnvironment, "render", lambda self: np.zeros((16, 16, 3), np.uint8))
    monkeypatch.setattr(video, "_suffix", lambda: ".gif")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    films = run.directory / "films"
    budget = ["--inference-steps", "2", "--candidates", "1", "--episodes", "1", "--seeds", "5"]
    main(parse(run, *budget, "--video", str(films)))
    assert [path.name for path in films.iterdir()] == ["seed5-steps2-candidates1-episode0.gif"]
    assert re.search(r"filming seed5-steps2-candidates1: \d+step", capsys.readouterr().err)


def test_command_refuses_what_it_cannot_play(run, monkeypatch):
    with pytest.raises(ValueError, match=r"has no training seeds \[4\]; it has \[3, 5\]"):
        main(parse(run, "--seeds", "3", "4"))
    refused: list[tuple[str, Any]] = [("episodes", 0), ("episodes", 10**30), ("workers", -1), ("video_episodes", 0)]
    for name, value in refused:
        with pytest.raises(ValueError, match=f"{name} is {value}; give a whole number from 1 to "):
            Config(run.directory, **{name: value})
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed is {seed}; give a whole number from 0 to "):
            Config(run.directory, seed=seed)
    with pytest.raises(ValueError, match="step_timeout is 0.0; give a number of seconds > 0"):
        Config(run.directory, step_timeout=0.0)
    own_logs = presets.own_logs(run.directory / "logs.npz")
    offline = dataclasses.replace(run, config=own_logs)
    monkeypatch.setattr(sys.modules[main.__module__], "load_run", lambda path: offline)
    with pytest.raises(ValueError, match="was trained on logs without an environment, so no episode can be played"):
        main(parse(run))


def test_films_show_the_episodes_that_were_evaluated(tmp_path, monkeypatch):
    frames = iter(np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), np.uint8))
    monkeypatch.setattr(OgbenchEnvironment, "render", lambda self: next(frames))
    monkeypatch.setattr(video, "_suffix", lambda: ".gif")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    options: Any = {"budget": Budget(noise_scale=0.0), "episodes": 4, "seed": 2}
    (path,) = video.record(hand(), CUBE, tmp_path / "films", label="steady-", **options)
    played = evaluate_policy(hand(), SerialEnvironments(CUBE), **options)
    assert [path] == list((tmp_path / "films").iterdir()) == [tmp_path / "films" / "steady-episode0.gif"]
    assert imageio.improps(path).shape[0] == played.lengths[0]
    assert imageio.immeta(path)["duration"] == 50


FILM = """
import pathlib, sys
from sorl.agents import Budget
from sorl.evaluate.video import record
from tests.evaluate.test_evaluation import CUBE, hand

try:
    record(hand(), CUBE, pathlib.Path(sys.argv[1]), budget=Budget(noise_scale=0.0), episodes=1)
except RuntimeError as error:
    print(error)
"""


def film(directory, renderer):
    root = pathlib.Path(__file__).parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root)])
    variables = {**os.environ, "PYTHONPATH": paths, "MUJOCO_GL": renderer}
    command = [sys.executable, "-W", "ignore", "-c", FILM, str(directory)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=True).stdout


def test_a_missing_renderer_is_one_clear_sentence(tmp_path):
    assert film(tmp_path, "disable").startswith(
        "MuJoCo cannot render off screen here (MUJOCO_GL=disable: AttributeError: "
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_films_are_rendered_where_there_is_a_renderer(tmp_path):
    said = film(tmp_path, "egl")
    if said.startswith("MuJoCo cannot render off screen here (MUJOCO_GL=egl"):
        pytest.skip(said)
    (path,) = tmp_path.iterdir()
    frames = imageio.imread(path)
    assert frames.shape[1:] == (320, 320, 3) and 20 < len(frames) < 100
    assert frames[0].std() > 10 and np.any(frames[0] != frames[-1])
