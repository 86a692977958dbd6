"""Fitted Q evaluation hits known values, and depends on the seed and the number of updates only."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import Budget
from sorl.assess import fitted_q
from sorl.assess.fitted_q import BEHAVIOUR, FitOptions, fit
from sorl.data.transitions import Dataset

from .linear import linear_policy, steps


pytestmark = pytest.mark.compiled_as_shipped  # thousands of updates are slow without LLVM's optimisations

SMALL = FitOptions(updates=600, hidden_sizes=(16, 16), batch_size=32, target_rate=0.1, learning_rate=3e-3)


def chain(terminates: bool):
    """State 1 -> 2 for a reward of 1 and 2 -> 1 for 2; the logged action is 0.5, and 2 may end the episode."""
    states, nexts = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    actions = np.full((2, 1), 0.5)
    return steps(states, actions, np.array([1.0, 2.0]), np.array([1.0, 0.0 if terminates else 1.0]), nexts, actions)


# Discount 1/2: Q1 = 1 + Q2 / 2, Q2 = 2 + Q1 / 2; or Q2 = 2, where the episode ends.
@pytest.mark.parametrize("terminates, expected", [(False, [8 / 3, 10 / 3]), (True, [2.0, 2.0])])
@pytest.mark.parametrize("shift", [0.0, 500.0])
def test_a_two_state_chain(terminates, expected, shift):
    data = chain(terminates)
    data = dataclasses.replace(data, rewards=data.rewards + shift)
    # A reward that is higher by b adds b to every step: 2 b, or b (1 + 1/2) and b where the episode ends.
    added = [2.0 * shift] * 2 if not terminates else [1.5 * shift, shift]
    policy = linear_policy([[0.5, 0.5]])  # acts with the logged 0.5 in both states
    found = fit(policy, (Budget(1),), data, 0.5, SMALL)
    actions = np.full((2, 1, 1), 0.5, np.float32)
    for number in (BEHAVIOUR, 1):
        values = found.values(number, np.asarray(data.observations)[data.starts], actions)
        assert values.shape == (2, 2)
        np.testing.assert_allclose(values, np.stack([np.add(expected, added)] * 2, axis=1), rtol=0.01)


def quadratic_value(gain, variance, discount=0.9, a=0.8, b=0.5, cost=0.3, noise=0.01):
    """V(x) = -(p x^2 + c) of u = gain x + noise, for x' = a x + b u + w and the reward -(x^2 + cost u^2)."""
    p = (1 + cost * gain**2) / (1 - discount * (a + b * gain) ** 2)
    c = (cost * variance + discount * p * (b**2 * variance + noise)) / (1 - discount)
    return lambda x: -(p * x**2 + c)


def test_a_linear_gaussian_problem_at_two_budgets_and_for_the_behaviour():
    random, rows = np.random.default_rng(0), 20_000
    x, u, after = random.uniform(-2, 2, rows), random.uniform(-1, 1, rows), random.uniform(-1, 1, (rows, 1))
    nexts = 0.8 * x + 0.5 * u + 0.1 * random.normal(size=rows)
    data = steps(x[:, None], u[:, None], -(x**2 + 0.3 * u**2), np.ones(rows), nexts[:, None], after)
    policy = linear_policy([[-0.2]], deviation=0.1)
    options = FitOptions(updates=1000, hidden_sizes=(32, 32), batch_size=256, target_rate=0.1, learning_rate=5e-3)
    found = fit(policy, (Budget(1), Budget(2)), data, 0.9, options)

    places = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    observations = places[:, None].astype(np.float32)
    # The behaviour acts uniformly in [-1, 1] whatever the state: gain 0, variance 1/3.
    cases = [(0.0, 1 / 3, random.uniform(-1, 1, (5, 500))), (-0.2, 0.01, None), (-0.4, 0.01, None)]
    for number, (gain, variance, actions) in enumerate(cases):
        if actions is None:
            actions = gain * places[:, None] + 0.1 * random.normal(size=(5, 500))
        values = found.values(number, observations, np.asarray(actions[..., None], np.float32)).mean(axis=1)
        np.testing.assert_allclose(values, quadratic_value(gain, variance)(places), atol=0.1)


def test_the_length_of_a_chunk_and_the_other_budgets_do_not_change_the_result(monkeypatch):
    options = dataclasses.replace(SMALL, updates=7)  # of the same sizes, so that it is the same program
    policy, seen = linear_policy([[0.5, 0.1]], deviation=0.3), []
    whole = fit(policy, (Budget(1),), chain(False), 0.9, options)
    monkeypatch.setattr(fitted_q, "CHUNK", 1)
    pieces = fit(policy, (Budget(1),), chain(False), 0.9, options, watch=lambda *now: seen.append(now[:2]))
    assert seen == [(updates, 1) for updates in range(1, 8)]
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(pieces)))
    other = fit(policy, (Budget(1),), chain(False), 0.9, dataclasses.replace(options, seed=1))
    assert not np.array_equal(jax.tree.leaves(whole.targets)[0], jax.tree.leaves(other.targets)[0])


def test_chunks_of_two_actions_have_the_values_of_their_steps():
    # The chain without an end, in trajectories that are cut: Q1 = 1 + 2 / 2 + Q1 / 4, as of single steps.
    length = 9
    odd = np.arange(length) % 2
    rows = np.arange(4 * length)
    data = Dataset(
        observations=jnp.asarray(np.tile(np.stack([1 - odd, odd], axis=1), (4, 1)), jnp.float32),
        actions=jnp.asarray(np.full((4 * length, 1), 0.5), jnp.float32),
        rewards=jnp.asarray(np.tile(1.0 + odd, 4), jnp.float32),
        masks=jnp.asarray(np.ones(4 * length), jnp.float32),
        starts=jnp.asarray(rows[rows % length < length - 1], jnp.int32),
    )
    found = fit(linear_policy(np.full((2, 2), 0.5), chunk=2), (Budget(1),), data, 0.5, SMALL)
    values = found.values(1, np.eye(2, dtype=np.float32), np.full((2, 1, 2), 0.5, np.float32)).mean(axis=1)
    np.testing.assert_allclose(values, [8 / 3, 10 / 3], rtol=0.01)
