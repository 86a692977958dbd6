"""Policies that give several actions at once: what they return, and how they are carried out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Fql, Normalisation, Policy, load_exported, load_policy
from sorl.policy.__main__ import Config, main
from sorl.policy.stablehlo import save_exported

from .. import synthetic
from ..random_networks import make_policy


KEY = jax.random.key(4)


@pytest.fixture(scope="module")
def policy():
    """Three actions of two numbers at once, the second in [0, 10]."""
    agent = synthetic.tiny(Fql, chunk=3)
    units = Normalisation(jnp.zeros(4), jnp.ones(4), jnp.array([-1.0, 0.0]), jnp.array([1.0, 10.0]))
    return Policy(agent.actor, make_policy(agent, 4, 3 * 2, seed=0), units)


def test_a_decision_is_a_chunk_of_actions(policy):
    observations = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    actions = policy(observations, key=KEY)
    assert actions.shape == (2, 5, 3, 2)
    assert policy(observations[0, 0], key=KEY).shape == (3, 2)
    assert policy(observations[:0], key=KEY).shape == (0, 5, 3, 2)
    assert (np.abs(actions[..., 0]) <= 1).all() and (np.abs(actions[..., 1] - 5) <= 5).all()
    # One after the other in what the networks give, each in the environment's units.
    plain = Policy(policy.actor, policy.networks, Normalisation.identity(4, 2))(observations, key=KEY)
    np.testing.assert_allclose(actions, plain * np.array([1.0, 5.0]) + np.array([0.0, 5.0]), atol=1e-5)
    assert "2 actions for each of 3 steps" in repr(policy)


def test_a_runner_returns_one_action_a_call_and_decides_at_every_third(policy):
    run, observations = policy.runner(key=KEY), np.random.default_rng(1).normal(size=(7, 4))
    found = [run(observation) for observation in observations]
    for decision, first in enumerate((0, 3, 6)):
        chunk = policy(observations[first], key=jax.random.fold_in(KEY, decision))
        np.testing.assert_array_equal(found[first : first + 3], chunk[: len(found) - first])
    assert run.decisions == 3
    # An episode that ends within a chunk drops what is left of it.
    run.reset()
    np.testing.assert_array_equal(run(observations[1]), policy(observations[1], key=jax.random.fold_in(KEY, 3))[0])


def test_a_runner_of_a_batch_keeps_its_shape(policy):
    run, observations = policy.runner(key=KEY), np.zeros((2, 4))
    chunk = policy(observations, key=jax.random.fold_in(KEY, 0))
    np.testing.assert_array_equal([run(observations), run(observations)], chunk.swapaxes(0, 1)[:2])
    with pytest.raises(ValueError, match=r"shape \(3, 4\), but the actions .* for a batch of shape \(2,\); call reset"):
        run(np.zeros((3, 4)))


def test_the_file_keeps_it(policy, tmp_path, capsys):
    policy.save(tmp_path / "policy.sorl")
    loaded = load_policy(tmp_path / "policy.sorl")
    assert (loaded.chunk, loaded.digest) == (3, policy.digest)
    np.testing.assert_array_equal(loaded(np.ones(4), key=KEY), policy(np.ones(4), key=KEY))
    main(Config(tmp_path / "policy.sorl"))
    assert "4 observations, 2 actions for each of 3 steps at once," in capsys.readouterr().out


def test_an_export_gives_the_same_chunks(policy, tmp_path):
    save_exported(policy, tmp_path / "policy.stablehlo", ["cpu"])
    loaded = load_exported(tmp_path / "policy.stablehlo")
    assert (loaded.noise_shape, loaded.action_shape) == ((1, 6), (3, 2))
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    noise = jax.vmap(lambda key: policy.actor.draw_action(6, policy.budget, key=key))(jax.random.split(KEY, 5))
    np.testing.assert_allclose(loaded(observations, noise), policy(observations, key=KEY), atol=1e-5)
    assert loaded(observations[:0], noise[:0]).shape == (0, 3, 2)
