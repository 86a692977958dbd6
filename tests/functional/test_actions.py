import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional.actions import energy_score, third_differences


@pytest.mark.parametrize(
    "samples, observed, expected",
    [
        ([[3.0, 4.0]], [0.0, 0.0], 5.0),  # one sample: its distance
        ([[-1.0], [1.0]], [0.0], 1 - 2 / 2),  # distances 1 and 1; the only pair is 2 apart
        ([[0.0], [0.0], [3.0]], [1.0], (1 + 1 + 2) / 3 - (0 + 3 + 3) / 3 / 2),
        ([[2.0, 1.0]] * 4, [2.0, 1.0], 0.0),
    ],
)
@pytest.mark.parametrize("transform", [jax.jit, lambda function: function])
def test_the_energy_score_of_known_samples(transform, samples, observed, expected):
    assert transform(energy_score)(jnp.array(samples), jnp.array(observed)) == pytest.approx(expected, abs=1e-6)


def test_the_energy_score_is_least_for_the_distribution_of_the_observations():
    random = np.random.default_rng(0)
    observed = jnp.asarray(random.normal(size=(4000, 1)), jnp.float32)

    def mean_score(mean, deviation):
        samples = jnp.asarray(mean + deviation * random.normal(size=(4000, 4, 1)), jnp.float32)
        return float(jnp.mean(jax.vmap(energy_score)(samples, observed)))

    # For N(0, 1) both terms are E |a - b| of two standard normals, 2 / sqrt(pi).
    best = mean_score(0.0, 1.0)
    assert best == pytest.approx(1 / np.sqrt(np.pi), abs=0.03)
    assert best < min(mean_score(0.0, 0.3), mean_score(0.0, 2.0), mean_score(0.7, 1.0)) - 0.03


def test_the_jerk_of_a_hand_made_trajectory():
    steps = np.arange(6.0)
    cubic, quadratic = steps**3, steps**2 - 4 * steps
    # The third difference of t^3 is 3! = 6, that of a quadratic 0.
    np.testing.assert_array_equal(third_differences(np.stack([cubic, quadratic], axis=1)), [[6.0, 0.0]] * 3)
    np.testing.assert_array_equal(third_differences(np.array([[0.0], [0.0], [1.0], [0.0], [0.0]])), [[-3.0], [3.0]])
    assert third_differences(np.zeros((3, 2))).shape == (0, 2)
