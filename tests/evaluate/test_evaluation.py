"""Evaluations play a fixed number of seeded episodes, and give the same whatever they are played on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import evaluate_policy
from sorl.agents import Budget
from sorl.data.normalisation import Normalisation
from sorl.environments import named
from sorl.environments.pool import EnvironmentPool
from sorl.environments.serial import SerialEnvironments
from sorl.evaluate import deciding, episodes as rollouts
from sorl.evaluate.episodes import episode_seeds, play

from .made_up import CUBE, ECHO_TRACES, Scripted, echo, hand, identity


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(named, "OgbenchEnvironment", Scripted)


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
    def program(structure):
        def run(leaves, key, episodes, steps, observations):
            shown.append((episodes, steps))
            return original(structure)(leaves, key, episodes, steps, observations)

        return run

    shown, original = [], deciding._program
    monkeypatch.setattr(deciding, "_program", program)
    monkeypatch.setattr(deciding, "MOST_ROWS", 3)
    environments = SerialEnvironments(CUBE, environments=side_by_side)
    evaluate_policy(echo(), environments, budget=Budget(3), episodes=7)
    assert {episodes.shape for episodes, _ in shown} == {(3,)}
    taken = {(row, episode) for episodes, _ in shown for row, episode in enumerate(episodes)}
    assert taken - {(row, 0) for row in range(3)} == {(episode % 3, episode) for episode in range(1, 7)}


def test_rows_are_few_and_evenly_shared():
    found = [deciding.batch_rows(episodes) for episodes in (1, 16, 17, 20, 32, 50, 1000)]
    assert found == [1, 16, 9, 10, 16, 13, 16]
    assert [deciding.batch_rows(50, candidates) for candidates in (2, 4, 8, 16, 100)] == [13, 13, 8, 4, 2]


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


def test_workers_threads_and_waves_give_what_one_process_gives(monkeypatch):
    monkeypatch.setattr(deciding, "MOST_ROWS", 2)  # so that episodes share rows
    expected = film_of(SerialEnvironments(CUBE))
    lengths = {len(film) for film in expected}
    assert len(lengths) > 1 and min(lengths) < 200  # some reach the goal, at different times
    for workers, threads in ((2, 1), (3, 3)):
        monkeypatch.setattr(rollouts, "deciding_threads", lambda _, threads=threads: threads)
        with EnvironmentPool(CUBE, workers=workers) as pool:
            found = film_of(pool)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_every_budget_meets_the_same_episodes_and_a_steady_hand_wins_them():
    with EnvironmentPool(CUBE, workers=2) as pool:
        steady = evaluate_policy(hand(), pool, budget=Budget(noise_scale=0.0), episodes=4, seed=2)
        shaky = evaluate_policy(hand(), pool, budget=Budget(noise_scale=4.0), episodes=4, seed=2)
    np.testing.assert_array_equal(steady.episode_seeds, shaky.episode_seeds)
    assert steady.success is not None and shaky.success is not None
    assert steady.success.all() and not shaky.success.any()
    assert set(shaky.lengths) == {200}
    # One is lost in each step but the last, which is judged on the goal reached before it.
    np.testing.assert_array_equal(steady.returns, 1.0 - steady.lengths)
    row = json.loads(json.dumps(steady.row()))
    assert (row["success"], row["successes"], row["episodes"], row["noise_scale"]) == (1.0, 4, 4, 0.0)
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
