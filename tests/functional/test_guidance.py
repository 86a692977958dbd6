"""Weights of logged actions by their value relative to the policy's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional.guidance import guidance_weight


def test_weights_on_a_bandit_of_two_actions():
    """Q is 1 for the good action and 0 for the bad one; the policy takes the good one with probability 3 / 4."""
    logged, own = jnp.array([1.0, 1.0, 0.0, 0.0]), jnp.array([1.0, 0.0, 1.0, 0.0])
    half, good = 0.5, 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(guidance_weight(logged, own, 0.5), [half, good, 1 - good, half], rtol=1e-6)
    # Cloning in proportion to data times mean weight: with uniform data, the good action's share rises above 1 / 2 to
    # (3 / 4 half + 1 / 4 good) over that plus (3 / 4 (1 - good) + 1 / 4 half).
    weight = guidance_weight(logged, own, 0.5)
    share = jnp.array([0.75, 0.25, 0.75, 0.25])
    of_good, of_bad = jnp.sum((share * weight)[:2]), jnp.sum((share * weight)[2:])
    assert float(of_good / (of_good + of_bad)) == pytest.approx(0.5952 / (0.5952 + 0.2144), abs=1e-4)


def test_eta_interpolates_between_all_rows_and_the_better_ones():
    logged, own = jnp.array([2.0, -1.0]), jnp.array([1.0, 1.0])
    np.testing.assert_allclose(guidance_weight(logged, own, 1e9), [0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(guidance_weight(logged, own, 1e-9), [1.0, 0.0], atol=1e-6)
    # The scale makes it independent of the rewards' unit.
    one = guidance_weight(logged, own, 0.3, jnp.float32(1.5))
    np.testing.assert_allclose(guidance_weight(100 * logged, 100 * own, 0.3, jnp.float32(150.0)), one, rtol=1e-5)


def test_weights_have_no_gradient():
    gradients = jax.grad(lambda q, own, eta: guidance_weight(q, own, eta, jnp.abs(own)), (0, 1, 2))(1.0, 0.5, 0.3)
    assert gradients == (0.0, 0.0, 0.0)
