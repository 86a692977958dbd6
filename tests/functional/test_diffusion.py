import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import diffusion
from sorl.networks import NoisePredictor
from sorl.networks.denoisers import ResidualBlock

from ..random_networks import ACTION_SIZE, OBSERVATION_SIZE, make


OBSERVATION = jnp.array([0.3, -1.0, 2.0])


def gaussian(mean, deviation, most):
    """The expected noise for data N(mean, deviation^2), for any observation."""

    def model(observation, noisy, time):
        share = diffusion.alpha_bar(time, most)
        variance = share * deviation**2 + 1 - share
        return jnp.sqrt(1 - share) * (noisy - jnp.sqrt(share) * mean) / variance

    return model


def test_alpha_bar_at_chosen_times():
    times = jnp.array([0.0, 0.5, 1.0])
    # exp(-0.05 - 9.9 / 8) and exp(-0.1 - 4.95).
    expected = [1.0, math.exp(-0.05 - 1.2375), math.exp(-5.05)]
    np.testing.assert_allclose(diffusion.alpha_bar(times, 10.0), expected, rtol=1e-6)
    np.testing.assert_allclose(diffusion.alpha_bar(jnp.array(1.0), 20.0), math.exp(-10.05), rtol=1e-5)


def test_alpha_bar_on_a_grid_is_the_product_of_the_discrete_schedule(x64):
    steps = 5
    i = np.arange(1, steps + 1)
    betas = 1 - np.exp(-0.1 / steps - 9.9 * (2 * i - 1) / (2 * steps**2))
    np.testing.assert_allclose(diffusion.alpha_bar(jnp.asarray(i / steps), 10.0), np.cumprod(1 - betas), rtol=1e-12)


def test_noisy_action_mixes_by_variance_and_clean_action_undoes_it():
    action, noise, share = jnp.array([0.5, -1.0]), jnp.array([2.0, 1.0]), jnp.array(0.36)
    noisy = diffusion.noisy_action(action, noise, share)
    np.testing.assert_allclose(noisy, [0.6 * 0.5 + 0.8 * 2, -0.6 + 0.8], rtol=1e-6)
    np.testing.assert_allclose(diffusion.clean_action(noisy, noise, share), action, rtol=1e-6)


def test_posterior_mean_and_variance_by_hand():
    # alpha = 0.36 / 0.64 = 9/16, so beta = 7/16; 1 - 0.36 = 16/25 and 1 - 0.64 = 9/25.
    mean, variance = diffusion.posterior(jnp.array([1.0]), jnp.array([-2.0]), jnp.array(0.36), jnp.array(0.64))
    np.testing.assert_allclose(mean, [(0.8 * 7 / 16 - 0.75 * 9 / 25 * 2) / (16 / 25)], rtol=1e-6)
    assert variance == pytest.approx(7 / 16 * 9 / 16)


def test_posterior_is_what_bayes_makes_of_the_two_gaussians(x64):
    share, earlier, clean, noisy = jnp.array(0.2), jnp.array(0.7), jnp.array([0.3]), jnp.array([-0.9])
    mean, variance = diffusion.posterior(clean, noisy, share, earlier)
    # Prior N(sqrt(0.7) 0.3, 0.3) times the likelihood N(noisy; sqrt(2/7) x, 5/7).
    alpha = 0.2 / 0.7
    precision = 1 / 0.3 + alpha / (1 - alpha)
    weighted = math.sqrt(0.7) * 0.3 / 0.3 - math.sqrt(alpha) * 0.9 / (1 - alpha)
    assert variance == pytest.approx(1 / precision, rel=1e-12)
    np.testing.assert_allclose(mean, [weighted / precision], rtol=1e-12)
    # At time 0 the posterior is the data action.
    mean, variance = diffusion.posterior(clean, noisy, share, jnp.array(1.0))
    np.testing.assert_allclose(mean, clean, rtol=1e-12)
    assert variance == 0


def test_noise_prediction_loss_sums_squares_at_the_noisy_action():
    time, action, noise = jnp.array(0.5), jnp.array([0.5, -0.5]), jnp.array([1.0, 2.0])
    share = math.exp(-0.05 - 1.2375)
    noisy = math.sqrt(share) * np.array([0.5, -0.5]) + math.sqrt(1 - share) * np.array([1.0, 2.0])

    def model(observation, asked, asked_time):
        np.testing.assert_allclose(asked, noisy, rtol=1e-6)
        np.testing.assert_array_equal(observation, OBSERVATION)
        assert asked_time == 0.5
        return jnp.array([3.0, 1.0])

    assert diffusion.noise_prediction_loss(model, OBSERVATION, action, noise, time, 10.0) == 4 + 1


def test_sampling_a_single_data_point_ends_there_whatever_the_noise(x64):
    model = gaussian(0.4, 0.0, 10.0)
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((5, 1)))
    found = jax.jit(lambda noise: diffusion.sample(model, OBSERVATION, noise, 10.0))(noise)
    np.testing.assert_allclose(found, [0.4], rtol=1e-9)


def test_sampling_follows_the_posterior_of_the_clipped_estimate(x64):
    noise, times = jnp.array([[1.5], [-0.5]]), jnp.array([1.0, 0.5])

    def model(observation, noisy, time):
        return noisy - time

    shares = diffusion.alpha_bar(times, 10.0)
    estimate = (1.5 - np.sqrt(1 - shares[0]) * 0.5) / np.sqrt(shares[0])
    assert estimate > 1
    mean, variance = diffusion.posterior(jnp.array([1.0]), noise[0], shares[0], shares[1])
    noisy = mean - 0.5 * np.sqrt(variance)
    expected = (noisy - np.sqrt(1 - shares[1]) * (noisy - 0.5)) / np.sqrt(shares[1])
    assert -1 < expected < 1
    np.testing.assert_allclose(diffusion.sample(model, OBSERVATION, noise, 10.0), expected, rtol=1e-9)


def _deviation_of_samples(steps, deviation):
    """The standard deviation of samples with the exact noise, which are Gaussian, from the posteriors' means."""
    shares = [math.exp(-0.1 * i / steps - 4.95 * (i / steps) ** 2) for i in range(steps + 1)]
    variance = 1.0
    for share, earlier in zip(shares[:0:-1], shares[-2::-1], strict=True):
        # The expected data action moves by this much with the noisy one, by the exact noise.
        slope = math.sqrt(share) * deviation**2 / (share * deviation**2 + 1 - share)
        alpha = share / earlier
        factor = (math.sqrt(earlier) * (1 - alpha) * slope + math.sqrt(alpha) * (1 - earlier)) / (1 - share)
        variance = factor**2 * variance + (1 - alpha) * (1 - earlier) / (1 - share)
    return math.sqrt(variance)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_sampling_a_gaussian_gives_its_mean_and_nears_its_deviation(x64, steps):
    mean, deviation, samples = 0.2, 0.15, 4000
    noise = jnp.asarray(np.random.default_rng(1).standard_normal((samples, steps, 1)))
    draw = jax.jit(jax.vmap(lambda z: diffusion.sample(gaussian(mean, deviation, 10.0), OBSERVATION, z, 10.0)))
    actions, expected = draw(noise), _deviation_of_samples(steps, deviation)
    assert abs(actions.mean() - mean) < 5 * deviation / math.sqrt(samples)
    assert actions.std() == pytest.approx(expected, rel=5 / math.sqrt(2 * samples))
    # Few steps make samples too narrow.
    assert expected < _deviation_of_samples(2 * steps, deviation) < deviation


def test_score_gradient_of_a_gaussian_points_away_from_its_mean(x64):
    mean, deviation, action, time = 0.2, 0.3, jnp.array([0.7]), jnp.array(0.4)
    share = diffusion.alpha_bar(time, 20.0)

    def gradient(noise):
        return diffusion.score_gradient(gaussian(mean, deviation, 20.0), OBSERVATION, action, noise, time, 20.0)

    # Opposite noises cancel, and what is left is sigma^3 sqrt(alpha_bar) (a - mean) / (alpha_bar s^2 + sigma^2).
    variance = float(1 - share)
    expected = variance**1.5 * math.sqrt(share) * 0.5 / (float(share) * deviation**2 + variance)
    noise = jnp.array([0.8])
    np.testing.assert_allclose((gradient(noise) + gradient(-noise)) / 2, [expected], rtol=1e-12)
    # One noise alone: sigma^2 times the error of the prediction.
    noisy = math.sqrt(share) * 0.7 + math.sqrt(variance) * 0.8
    predicted = math.sqrt(variance) * (noisy - math.sqrt(share) * mean) / (float(share) * deviation**2 + variance)
    np.testing.assert_allclose(gradient(noise), [variance * (predicted - 0.8)], rtol=1e-12)


def test_residual_block_adds_its_branch_and_drops_units_of_the_branch_alone():
    block, x = make(ResidualBlock, 4), jnp.array([1.0, -2.0, 0.5, 3.0])
    normalised = (x - x.mean()) / jnp.sqrt(x.var() + 1e-6) * block.norm.weight + block.norm.bias
    np.testing.assert_allclose(block(x), x + block.mlp(normalised), rtol=1e-5)
    kept = jnp.array([0.0, 2.0, 2.0, 0.0])
    np.testing.assert_array_equal(block(x, kept), x + block.mlp(block.norm(kept * x)))
    assert block.mlp.layers[0].weight.shape == (16, 4)


def test_noise_predictor_sees_observation_action_and_time():
    model = eqx.filter_jit(make(NoisePredictor, OBSERVATION_SIZE, ACTION_SIZE, 8, 2))
    action, time = jnp.array([0.1, -0.4]), jnp.array(0.4)
    answer = model(OBSERVATION, action, time)
    assert answer.shape == (ACTION_SIZE,)
    for other in ((OBSERVATION + 1, action, time), (OBSERVATION, action + 1, time), (OBSERVATION, action, time + 0.1)):
        assert not np.allclose(model(*other), answer)
    # A mask of ones drops nothing, and each block has its own row.
    ones = jnp.ones((2, 8))
    np.testing.assert_array_equal(model(OBSERVATION, action, time, ones), answer)
    for row in range(2):
        assert not np.allclose(model(OBSERVATION, action, time, ones.at[row].set(0.0)), answer)


def test_noise_predictor_of_the_published_size():
    model = jax.eval_shape(lambda key: NoisePredictor(28, 5, 256, 3, key=key), jax.random.key(0))
    # Time: 32 frequencies, 64 -> 128 -> 128. Stream: 161 -> 256, blocks 256 -> 1024 -> 256, 256 -> 5.
    time = 32 + 64 * 128 + 128 + 128 * 128 + 128
    blocks = 3 * (2 * 256 + 256 * 1024 + 1024 + 1024 * 256 + 256)
    stream = 161 * 256 + 256 + blocks + 256 * 5 + 5
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == time + stream
