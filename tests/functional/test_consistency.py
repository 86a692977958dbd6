import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import consistency
from sorl.networks import ConsistencyNetwork

from ..random_networks import ACTION_SIZE, OBSERVATION_SIZE, directional_derivatives, make


OBSERVATION = jnp.array([0.3, -1.0, 2.0])


def make_network(seed=0, dtype=jnp.float32):
    return make(ConsistencyNetwork, OBSERVATION_SIZE, ACTION_SIZE, (5,), seed=seed, dtype=dtype)


def constant(value):
    return lambda observation, action, level: jnp.full_like(action, value)


def test_data_are_left_as_they_are_whatever_the_network():
    action, time = jnp.array([0.7, -0.2]), jnp.array(consistency.SIGMA_MIN)
    networks = make_network(0), make_network(1), constant(1e6)
    for found in jax.jit(lambda: [consistency.denoise(network, OBSERVATION, action, time) for network in networks])():
        np.testing.assert_array_equal(found, action)


def test_denoise_by_hand(x64):
    asked = []

    def network(observation, action, level):
        asked.append((action, level))
        return jnp.array([2.0])

    # At t = 1: c_skip = 0.25 / (0.998^2 + 0.25), c_out = 0.5 * 0.998 / sqrt(1.25).
    answer = consistency.denoise(network, OBSERVATION, jnp.array([3.0]), jnp.array(1.0))
    expected = 3 * 0.25 / (0.998**2 + 0.25) + 2 * 0.499 / math.sqrt(1.25)
    np.testing.assert_allclose(answer, [expected], rtol=1e-12)
    np.testing.assert_allclose(asked[0][0], [3 / math.sqrt(1.25)], rtol=1e-12)
    assert asked[0][1] == 0
    consistency.denoise(network, OBSERVATION, jnp.array([3.0]), jnp.array(80.0))
    assert asked[1][1] == pytest.approx(math.log(80) / 4)


def test_training_grid_grows_with_the_updates():
    points = jax.vmap(lambda step: consistency.grid_points(step, 1000.0))(jnp.array([0, 1, 250, 1000, 5000]))
    # Squares 4, 26.496, 5628, 22500: roots 2, 5.15, 75.02, 150.
    np.testing.assert_array_equal(points, [2, 6, 76, 150, 150])


def test_grid_runs_from_data_to_noise_and_is_finer_near_the_data(x64):
    times = jax.vmap(lambda index: consistency.grid_time(index, jnp.array(150.0)))(jnp.arange(150.0))
    np.testing.assert_allclose([times[0], times[-1]], [0.002, 80.0], rtol=1e-9)
    assert np.all(np.diff(times, n=2) > 0)
    middle = ((0.002 ** (1 / 7) + 80 ** (1 / 7)) / 2) ** 7
    np.testing.assert_allclose(consistency.grid_time(jnp.array(1.0), jnp.array(3.0)), middle, rtol=1e-12)


def test_consistency_loss_compares_two_points_of_one_path(x64):
    network, teacher = constant(1.0), constant(-1.0)
    action, noise = jnp.array([0.5, -0.5]), jnp.array([1.0, -2.0])
    time, next_time = jnp.array(0.3), jnp.array(1.0)

    def answer(f, t):
        skip = 0.25 / ((t - 0.002) ** 2 + 0.25)
        return skip * (action + t * noise) + f * 0.5 * (t - 0.002) / math.sqrt(t**2 + 0.25)

    expected = np.mean((answer(1.0, 1.0) - answer(-1.0, 0.3)) ** 2)
    loss = consistency.consistency_loss(network, teacher, OBSERVATION, action, noise, time, next_time)
    assert loss == pytest.approx(float(expected), rel=1e-12)


def test_consistency_loss_has_no_gradient_in_the_teacher(x64):
    network, teacher = make_network(0, jnp.float64), make_network(1, jnp.float64)
    path = OBSERVATION, jnp.array([0.5, -0.5]), jnp.array([1.0, -2.0]), jnp.array(0.3), jnp.array(1.0)

    def loss(network, teacher):
        return consistency.consistency_loss(network, teacher, *path)

    @jax.jit
    def gradients(network, teacher):
        # The last two of a network that is its own teacher.
        own, alone = jax.grad(lambda f: loss(f, f))(network), jax.grad(loss)(network, network)
        return *jax.grad(loss, argnums=(0, 1))(network, teacher), own, alone

    gradient, into_teacher, own, alone = gradients(network, teacher)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(into_teacher))
    analytic, numeric = directional_derivatives(jax.jit(lambda f: loss(f, teacher)), network, gradient)
    assert analytic == pytest.approx(numeric, rel=1e-6)
    # Not even where the teacher is the network itself: only the later answer moves.
    for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_path_to_one_data_point_is_consistent(x64):
    # The true consistency function for data that are one point d: f = d everywhere.
    data = jnp.array([0.25, -0.6])

    def network(observation, action, level):
        time = jnp.exp(4 * level)
        deviation = jnp.sqrt(time**2 + 0.25)
        skip = 0.25 / ((time - 0.002) ** 2 + 0.25)
        return (data - skip * action * deviation) * deviation / (0.5 * (time - 0.002))

    noise = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2)))
    times = jnp.array(1.5), jnp.array(9.0)
    loss = consistency.consistency_loss(network, network, OBSERVATION, data, noise[0], *times)
    assert loss == pytest.approx(0.0, abs=1e-20)
    np.testing.assert_allclose(consistency.sample(network, OBSERVATION, noise), data, rtol=1e-9)


def test_sampling_adds_noise_up_to_each_time_and_denoises(x64):
    network = make_network(0, jnp.float64)
    noise = jnp.array([[0.02, -0.01], [0.3, 0.1], [-0.2, 0.4]])
    action = consistency.denoise(network, OBSERVATION, 80 * noise[0], jnp.array(80.0))
    for time, z in ((41.0, noise[1]), (2.0, noise[2])):
        noisy = action + math.sqrt(time**2 - 0.002**2) * z
        action = consistency.denoise(network, OBSERVATION, noisy, jnp.array(time))
    np.testing.assert_allclose(consistency.sample(network, OBSERVATION, noise), jnp.clip(action, -1, 1), rtol=1e-9)
    # A single step denoises from pure noise.
    once = consistency.denoise(network, OBSERVATION, 80 * noise[0], jnp.array(80.0))
    np.testing.assert_allclose(consistency.sample(network, OBSERVATION, noise[:1]), jnp.clip(once, -1, 1), rtol=1e-12)


def test_samples_are_clipped():
    noise = jnp.zeros((1, 2))
    np.testing.assert_array_equal(consistency.sample(constant(50.0), OBSERVATION, noise), [1.0, 1.0])
    np.testing.assert_array_equal(consistency.sample(constant(-50.0), OBSERVATION, noise), [-1.0, -1.0])
