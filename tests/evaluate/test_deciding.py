"""Batches of decisions give the same bits in any thread, beside any others, and end a wait for steps."""

import jax
import numpy as np
import pytest

from sorl import Normalisation, Policy, Sorl
from sorl.agents import Budget
from sorl.evaluate.deciding import Batch, Deciders


EPISODES, ROWS = np.arange(12), 4


@pytest.fixture(scope="module")
def batch():
    agent = Sorl(hidden_sizes=(16, 16), critic_hidden_sizes=(16, 16))
    networks = jax.jit(lambda key: agent.policy(agent.init(3, 2, key=key)))(jax.random.key(0))
    policy = Policy(agent.actor, networks, Normalisation.identity(3, 2), budget=Budget(2, 8))
    return Batch.of(policy, ROWS, seed=1)


def observations_of(episodes):
    return np.stack([np.random.default_rng(episode).normal(size=3) for episode in episodes])


def decide(batch, threads, groups):
    """The action of each episode at its third step, if these groups are decided."""
    found, wakes = {}, []
    with Deciders(batch, threads, lambda: wakes.append(None)) as deciders:
        left = list(groups)
        while left or deciders.episodes:
            while left and deciders.idle:
                group = np.array(left.pop())
                deciders.begin(group, np.full(len(group), 2), observations_of(group))
            deciders.wait()
            for episodes, actions in deciders.finished():
                found |= zip(episodes.tolist(), actions[:, 0].tolist(), strict=True)
    assert len(wakes) == (len(groups) if threads else 0)
    return [found[episode] for episode in EPISODES]


def test_neither_threads_nor_company_change_a_bit(batch):
    expected = decide(batch, 0, [[episode] for episode in EPISODES])
    assert len(set(map(tuple, expected))) == len(EPISODES)
    full = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    mixed = [[8, 1], [6, 0, 3], [4], [2, 5, 11], [9, 10], [7]]
    for threads, groups in ((1, full), (3, full), (0, mixed), (4, mixed)):
        assert decide(batch, threads, groups) == expected


@pytest.mark.parametrize("threads", [0, 1])
def test_an_action_that_is_not_finite_is_an_error_of_the_caller(batch, threads):
    with Deciders(batch, threads, lambda: None) as deciders:
        with pytest.raises(FloatingPointError, match="action in episode 5 at step 2 is not finite"):
            deciders.begin(np.array([5]), np.array([2]), np.full((1, 3), np.nan))
            deciders.wait()
            deciders.finished()


def test_threads_use_the_device_and_precision_of_their_caller(batch, monkeypatch):
    seen = []

    def program(leaves, key, episodes, steps, observations):
        seen.append(tuple(getattr(jax.config, f"jax_default_{name}") for name in ("device", "matmul_precision")))
        return np.zeros((ROWS, 2))

    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("tensorfloat32"):
        policy = Policy(Sorl().actor, (), Normalisation.identity(3, 2), budget=Budget(2, 8))
        here = Batch.of(policy, ROWS, seed=1)._replace(program=program)
    with Deciders(here, 1, lambda: None) as deciders:
        deciders.begin(np.array([0]), np.array([0]), np.zeros((1, 3)))
        deciders.wait()
        deciders.finished()
    assert seen == [(jax.devices("cpu")[0], "tensorfloat32")]
