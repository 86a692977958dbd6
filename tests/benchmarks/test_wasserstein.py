"""The known flows of the benchmark, the distance, and the errors of a field that is exact."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wasserstein
from mixtures import LAWS, Mixture, mixture
from transport import distance, errors, spread_noise


GAUSSIAN = mixture([1.0], [[0.3, -0.2]], [0.5])


flow = jax.jit(Mixture.flow, static_argnums=(2, 3))


def _spread(time):
    return ((1 - time) ** 2 + (0.5 * time) ** 2) ** 0.5


@jax.jit
def _exact(observation, action, time, log2_steps):
    """The average velocity of the Gaussian's flow, which keeps (a - t mu) / s(t) constant."""
    time, log2_steps = (jnp.broadcast_to(x, action.shape[:-1])[..., None] for x in (time, log2_steps))
    step, mean = jnp.exp2(-log2_steps), jnp.broadcast_to(jnp.array([0.3, -0.2]), action.shape)
    unit = (action - time * mean) / _spread(time)
    return ((time + step) * mean + _spread(time + step) * unit - action) / step


def test_the_drift_of_a_gaussian_is_the_derivative_of_its_flow():
    x, time, step = jnp.array([[0.2, -0.4], [1.0, 0.7]]), 0.6, 1e-3
    expected = _exact(None, x, time, np.log2(1 / step))
    np.testing.assert_allclose(jax.jit(Mixture.drift)(GAUSSIAN, x, jnp.float32(time)), expected, atol=2e-3)


@pytest.mark.parametrize("name", LAWS)
def test_the_flow_carries_noise_to_the_law(name):
    """By mean and covariance, of noise that is spread evenly."""
    law = LAWS[name]
    weights, means, deviations = (np.asarray(x, np.float64) for x in (law.weights, law.means, law.deviations))
    noise = spread_noise(1024, means.shape[1], 0)
    end = np.asarray(flow(law, noise, 16, 4)[-1])
    mean = weights @ means
    away = means - mean
    covariance = (weights[:, None] * away).T @ away + weights @ deviations**2 * np.eye(means.shape[1])
    np.testing.assert_allclose(end.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.atleast_2d(np.cov(end.T)), covariance, atol=0.02)


def test_distances_by_hand():
    assert distance(np.array([[3.0], [0.0]]), np.array([[1.0], [2.0]])) == pytest.approx(1.0)  # 0 to 1, 3 to 2
    one, other = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 2.0]])
    assert distance(one, other) == pytest.approx(np.sqrt((1 + 4) / 2))


def test_an_exact_field_has_no_error_but_the_grids():
    path = flow(GAUSSIAN, spread_noise(256, 2, 0), 8, 8)
    field: Any = _exact
    found = jax.jit(lambda path: errors(GAUSSIAN, field, path, 8))(path)
    assert all(float(error) < 2e-4 for error in found["sc"])
    # The finest step's average velocity is not the velocity: the field's difference is the grid's.
    assert float(found["fm"]) == pytest.approx(float(found["discretisation"]), rel=0.01)
    # s is linear in a, with slope (s(t + h) / s(t) - 1) / h.
    slopes = [
        abs(float(_spread(t + h) / _spread(t) - 1) / h) for h in (1, 1 / 2, 1 / 4, 1 / 8) for t in np.arange(0, 1, h)
    ]
    assert float(found["lipschitz"]) == pytest.approx(max(slopes), rel=1e-3)


def test_the_bound_and_rises_by_hand(tmp_path):
    rows = [
        {"law": "a", "h": 1.0, "w2": 0.4, "errors": 0.2, "bound": 1.0, "fm_error": 0.1},
        {"law": "a", "h": 0.5, "w2": 0.2, "errors": 0.1, "bound": 0.3, "fm_error": 0.1},
        {"law": "a", "h": 0.25, "w2": 0.3, "errors": 0.1, "bound": 0.2, "fm_error": 0.1},
        {"law": "b", "h": 1.0, "w2": 0.01, "errors": 0.1, "bound": 0.2, "fm_error": 0.1},
        {"law": "b", "h": 0.5, "w2": 0.09, "errors": 0.1, "bound": 0.2, "fm_error": 0.1},
    ]
    assert wasserstein.rises(rows) == [rows[2]]  # the last is below the floor
    assert wasserstein.slope(rows[:2])["slope"] == pytest.approx((0.4 * 0.2 + 0.2 * 0.1) / (0.04 + 0.01))
    with pytest.raises(ValueError, match="There is no law 'c'"):
        wasserstein.Config(laws=("c",))
