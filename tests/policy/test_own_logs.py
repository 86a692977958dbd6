"""How a policy of own logs acts: in double precision, within limits, and counted."""

import copy
import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Normalisation, Policy, load_logs, load_policy
from sorl.agents import AGENTS
from sorl.policy import decide, exported
from sorl.policy.stablehlo import save_exported
from sorl.scaling.grid import time_decisions

from .. import synthetic
from ..random_networks import make_policy


CLOCK, CONSTANT, SMALL = 0, 1, 2
"""Columns of the log: seconds since 1970, a constant, and an ordinary small unit."""


@pytest.fixture(scope="module")
def normalisation(tmp_path_factory):
    """Of a log whose second action never moved from 0.3."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("logs") / "log.npz"
    rows = np.arange(400)
    np.savez(
        path,
        observations=np.stack([1.7e9 + rows / 50, np.full(400, 0.3), 2e-7 * np.sin(rows)], axis=1),
        actions=np.stack([random.uniform(-7e-8, 7e-8, 400), np.full(400, 0.3)], axis=1),
        rewards=np.zeros(400),
        terminals=np.zeros(400),
        timeouts=rows % 100 == 99,
    )
    return load_logs(path, validation_fraction=0.0, observation_margin=1.5).normalisation


def _policy(normalisation, agent=None):
    agent = synthetic.agent() if agent is None else agent
    return Policy(agent.actor, make_policy(agent, 3, 2, seed=0, scale=0.4), normalisation)


@pytest.fixture
def policy(normalisation):
    return _policy(normalisation)


def _inside(seconds=4.0, constant=0.3, small=1e-7):
    return np.array([1.7e9 + seconds, constant, small])


def test_it_acts_on_the_standardised_observation(policy, normalisation):
    """The networks see the standardised observation, as a policy without an observation map does."""
    clock, small = np.arange(400) / 50, 2e-7 * np.sin(np.arange(400))
    expected = np.array([(4 - clock.mean()) / clock.std(), 0, (1e-7 - small.mean()) / small.std()], np.float32)
    plain = Policy(policy.actor, policy.networks, normalisation.without_observation_map())
    key = jax.random.key(1)
    found, wanted = policy(_inside(), key=key), plain(expected, key=key)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    assert abs(found[0] / policy(_inside(seconds=5.0), key=key)[0] - 1) > 0.01


@pytest.mark.parametrize("name", AGENTS)
def test_no_agent_moves_a_constant_action_or_leaves_the_range(name, normalisation):
    policy = _policy(normalisation, synthetic.tiny(AGENTS[name]))
    observations = np.array([_inside(seconds) for seconds in range(8)])
    own = policy.actor.budgets
    candidates = 4 if own.other_candidates else own.candidates[-1]
    # So much noise drives every agent that heeds it to the ends of its range.
    actions = policy(observations, key=jax.random.key(0), candidates=candidates, noise_scale=30.0)
    assert actions.dtype == np.float32
    assert (actions[:, 1] == np.float32(0.3)).all()
    assert (np.abs(actions[:, 0].astype(np.float64)) <= 7e-8).all()


def test_outside_of_the_limits_it_acts_as_at_them_and_warns_once(policy, normalisation):
    key = jax.random.key(1)
    low, high = normalisation.standardisation().limits()
    observation = np.array([1.7e9 + 100, 0.32, -1.0])
    with pytest.warns(UserWarning) as caught:
        action = policy(observation, key=key)
    (warning,) = caught
    sentence = str(warning.message)
    assert "observations[0] = 1700000100 (limits 1699999998 to 1700000010)" in sentence
    assert "observations[1] = 0.32 (limits 0.3 to 0.3), observations[2] = -1 (limits -2.99" in sentence
    np.testing.assert_allclose(action, policy(np.array([high[0], 0.3, low[2]]), key=key), rtol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy(observation, key=key)


def test_the_rounding_of_a_constant_is_not_outside(policy):
    observation = _inside()
    observation[CONSTANT] = np.float32(0.3)
    assert not policy.outside(observation).any()
    observation[CONSTANT] = 0.3001
    assert policy.outside(observation).tolist() == [False, True, False]
    assert policy.outside(np.tile(observation, (2, 5, 1))).shape == (2, 5, 3)


def test_preparing_a_runner_acts_within_the_limits(policy):
    policy.runner(key=jax.random.key(7), steps=2).prepare()  # a warning would fail
    with pytest.warns(UserWarning, match="acts outside of what was logged"):
        policy(_inside(constant=0.5), key=jax.random.key(7), steps=2)


def test_a_mean_that_single_precision_rounds_out_of_the_limits_is_within_them():
    limit = jnp.full(3, 3.0)
    remainder = jnp.array([60.0, 0.0, 0.0])  # the mean is 1.7e9 + 60, which single precision rounds by 60
    clock = synthetic.units(observation_mean_remainder=remainder, observation_low=-limit, observation_high=limit)
    clock = dataclasses.replace(clock, observation_mean=jnp.array([1.7e9, 2.0, 3.0], jnp.float32))
    policy = _policy(clock)
    policy.runner(key=jax.random.key(7)).prepare()  # a warning would fail, here and below
    time_decisions(policy, policy.budget, 2, 0.0)
    with pytest.warns(UserWarning, match="acts outside of what was logged"):  # so none was given before
        policy(np.array([1.7e9 + 100, 2.0, 3.0]), key=jax.random.key(7))


def test_a_runner_counts_and_draws_from_a_key_for_each_decision(policy):
    key = jax.random.key(7)
    run = policy.runner(key=key, steps=2)
    first = run(_inside())
    np.testing.assert_array_equal(first, policy(_inside(), key=jax.random.fold_in(key, 0), steps=2))
    assert run.report() == "Of 1 observation, none was outside of its limits."
    with pytest.warns(UserWarning, match="acts outside of what was logged"):
        second = run(_inside(constant=0.5))
    np.testing.assert_array_equal(second, policy(_inside(constant=0.5), key=jax.random.fold_in(key, 1), steps=2))
    run(_inside(seconds=1e4, constant=0.5))
    assert run.decisions == 3 and run.outside.tolist() == [1, 2, 0]
    assert run.report() == (
        "Of 3 observations, outside of their limits and clipped: observations[1] in 2, observations[0] in 1."
    )


def test_a_runner_counts_the_observations_of_batches(policy):
    run = policy.runner(key=jax.random.key(0), steps=2)
    run(np.tile(policy.normalisation.standardisation().mean, (3, 1)))
    assert (run.decisions, run.observations) == (1, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        policy.runner(key=jax.random.key(0), step=2)


def test_a_runner_needs_a_key(policy):
    with pytest.raises(ValueError, match="key"):
        policy.runner(key=0)


def test_a_copy_acts_the_same_after_a_decision(policy):
    key = jax.random.key(1)
    action = policy(_inside(), key=key)
    np.testing.assert_array_equal(copy.deepcopy(policy)(_inside(), key=key), action)


def test_without_limits_nothing_is_outside():
    policy = _policy(Normalisation.identity(3, 2))
    run = policy.runner(key=jax.random.key(0))
    run(np.full(3, 1e9))
    assert run.outside.tolist() == [0, 0, 0]


def test_the_file_keeps_every_bit(policy, tmp_path):
    policy.save(tmp_path / "policy.sorl")
    loaded = load_policy(tmp_path / "policy.sorl")
    assert loaded.digest == policy.digest
    for one, other in zip(jax.tree.leaves(loaded.normalisation), jax.tree.leaves(policy.normalisation), strict=True):
        np.testing.assert_array_equal(one, other)
    key = jax.random.key(1)
    np.testing.assert_array_equal(loaded(_inside(), key=key), policy(_inside(), key=key))


def test_an_exported_program_clips_too_and_its_digits_are_warned_of(policy, tmp_path):
    with pytest.warns(UserWarning, match=r"sees observations\[0\] to few digits"):
        save_exported(policy, tmp_path / "policy.stablehlo", ["cpu"])
    program = exported.load_exported(tmp_path / "policy.stablehlo")
    noise = program.noise(np.random.default_rng(0))
    far = _inside(constant=5.0, small=-1.0)
    at_limit = _inside(small=policy.normalisation.standardisation().limits()[0][SMALL])
    np.testing.assert_allclose(program(far, noise), program(at_limit, noise), rtol=1e-5)


def test_policy_decision_and_exported_program_agree_on_ordinary_logs(tmp_path):
    """Three ways to act: standardised by numpy, inside of a program, and in an exported one."""
    random, rows = np.random.default_rng(1), 400
    np.savez(
        tmp_path / "log.npz",
        observations=random.normal([5, -3, 1000, 0.3], [1, 10, 100, 0], (rows, 4)),
        actions=random.uniform([-2, 0.3], [5, 0.3], (rows, 2)),
        rewards=np.zeros(rows),
        terminals=np.zeros(rows),
        timeouts=np.arange(rows) % 100 == 99,
    )
    agent, budget, key = synthetic.agent(), Budget(2, 4), jax.random.key(1)
    networks = make_policy(agent, 4, 2, seed=0, scale=0.2)
    policy = Policy(agent.actor, networks, load_logs(tmp_path / "log.npz").normalisation, budget=budget)
    observations = np.load(tmp_path / "log.npz")["observations"][:50]
    expected = policy(observations, key=key)
    keys = jax.random.split(key, 50)
    decided = decide(agent.actor, networks, policy.normalisation, observations.astype(np.float32), keys, budget)
    np.testing.assert_allclose(decided, expected, atol=2e-5)
    save_exported(policy, tmp_path / "policy.stablehlo", ["cpu"])
    noise = jax.vmap(lambda one: agent.actor.draw_action(2, budget, key=one))(keys)
    exported_actions = exported.load_exported(tmp_path / "policy.stablehlo")(observations, noise)
    np.testing.assert_allclose(exported_actions, expected, atol=2e-5)
    assert (expected[:, 1] == np.float32(0.3)).all() and np.ptp(expected[:, 0]) > 0.5


def test_observations_beyond_single_precision_are_refused(policy):
    with pytest.raises(ValueError, match=r"holds 1e\+300 at index \[2\]"):
        policy(_inside(small=1e300), key=jax.random.key(0))


def test_limits_need_both_ends_and_the_remainder():
    sizes = jnp.zeros(3), jnp.ones(3), -jnp.ones(2), jnp.ones(2)
    with pytest.raises(ValueError, match="Only one of observation_low and observation_high"):
        Normalisation(*sizes, observation_mean_remainder=jnp.zeros(3), observation_low=-jnp.ones(3))
    with pytest.raises(ValueError, match="need observation_mean_remainder"):
        Normalisation(*sizes, observation_low=-jnp.ones(3), observation_high=jnp.ones(3))
