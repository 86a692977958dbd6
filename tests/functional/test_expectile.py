"""Expectiles and advantage weights, against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import expectile as values


def test_expectile_loss_at_hand_computed_points():
    q, v = jnp.array([3.0, 1.0]), jnp.array([1.0, 2.0])
    # 0.9 * 2^2 where Q is above V, 0.1 * 1^2 where it is below.
    assert values.expectile_loss(q, v, 0.9) == pytest.approx((0.9 * 4 + 0.1 * 1) / 2, rel=1e-6)
    # At 0.5 half the mean square.
    assert values.expectile_loss(q, v, 0.5) == pytest.approx(0.5 * (4 + 1) / 2, rel=1e-6)


@pytest.mark.parametrize(
    "samples, expectile, expected",
    [
        ([0.0, 1.0], 0.9, 0.9),  # of two equally likely values it is the expectile itself
        ([0.0, 1.0, 4.0], 0.5, 5 / 3),  # the mean
        # Between 1 and 4: 0.9 (4 - v) = 0.1 (v - 0) + 0.1 (v - 1), so v = 3.7 / 1.1.
        ([0.0, 1.0, 4.0], 0.9, 3.7 / 1.1),
        ([0.0, 1.0, 4.0], 1.0, 4.0),  # the maximum
    ],
)
def test_the_expectile_of_known_samples_minimises_the_loss(samples, expectile, expected):
    q = jnp.array(samples)

    def loss(v):
        return values.expectile_loss(q, jnp.full(len(samples), v), expectile)

    assert jax.grad(loss)(expected) == pytest.approx(0.0, abs=1e-6)
    assert loss(expected) < loss(expected - 0.01)
    assert loss(expected) <= loss(expected + 0.01)


def test_advantage_weights_are_bounded_exponentials_without_a_gradient():
    advantage = jnp.array([-2.0, 0.0, 0.5, 1e4])
    weights = values.advantage_weight(advantage, 3.0)
    np.testing.assert_allclose(weights, [np.exp(-6.0), 1.0, np.exp(1.5), 100.0], rtol=1e-5)
    np.testing.assert_array_equal(values.advantage_weight(advantage, 0.0), 1.0)
    gradient = jax.grad(lambda a: jnp.sum(values.advantage_weight(a, 3.0)))(advantage)
    np.testing.assert_array_equal(gradient, 0.0)
