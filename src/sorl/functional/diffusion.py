"""Diffusion models as policies: noise schedule, noise prediction, and sampling from the posterior.

Noise grows with time, from a data action at time 0 to nearly pure noise at time 1 (variance preserving: Song et al.
2021, "Score-Based Generative Modeling through SDEs"). A network predicts the noise in a noisy action; sampling steps
back in time with the posterior of the earlier action (Ho et al. 2020, "Denoising Diffusion Probabilistic Models").
All functions take one example; the caller uses `vmap`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float


NoisePrediction = Callable[[Array, Array, Array], Array]
"""The noise in an action, from (observation, noisy action, time); a `NoisePredictor` or any function like it."""

Scalar = float | Float[Array, ""]

BETA_MIN = 0.1
"""beta(0), the noise rate at time 0."""


def alpha_bar(time: Float[Array, "*batch"], beta_max: Scalar) -> Float[Array, "*batch"]:
    """alpha_bar(t): the share of a noisy action's variance that comes from the data at `time`, 1 at time 0.

    It is exp(-b t - (B - b) t^2 / 2) for the noise rate beta(t) = b + (B - b) t, b = `BETA_MIN` and B = `beta_max`. On
    the grid t = i / T this is the product of the 1 - beta_i of the "vp" schedule of discrete diffusion in T steps
    (Xiao et al. 2022, "Tackling the Generative Learning Trilemma"; there B = 10).
    """
    return jnp.exp(-BETA_MIN * time - (beta_max - BETA_MIN) * time**2 / 2)


def noisy_action(
    action: Float[Array, " action"], noise: Float[Array, " action"], alpha_bar: Float[Array, ""]
) -> Float[Array, " action"]:
    """sqrt(alpha_bar) a + sqrt(1 - alpha_bar) noise (Ho et al. 2020, equation 4)."""
    return jnp.sqrt(alpha_bar) * action + jnp.sqrt(1 - alpha_bar) * noise


def clean_action(
    noisy: Float[Array, " action"], noise: Float[Array, " action"], alpha_bar: Float[Array, ""]
) -> Float[Array, " action"]:
    """The data action, given the noisy action and the noise in it: the inverse of `noisy_action`."""
    return (noisy - jnp.sqrt(1 - alpha_bar) * noise) / jnp.sqrt(alpha_bar)


def noise_prediction_loss(
    model: NoisePrediction,
    observation: Float[Array, " observation"],
    action: Float[Array, " action"],
    noise: Float[Array, " action"],
    time: Float[Array, ""],
    beta_max: Scalar,
) -> Float[Array, ""]:
    """|noise - model(x, noisy action, t)|^2, summed over action dimensions (Ho et al. 2020, equation 14)."""
    noisy = noisy_action(action, noise, alpha_bar(time, beta_max))
    return jnp.sum((model(observation, noisy, time) - noise) ** 2)


def score_gradient(
    model: NoisePrediction,
    observation: Float[Array, " observation"],
    action: Float[Array, " action"],
    noise: Float[Array, " action"],
    time: Float[Array, ""],
    beta_max: Scalar,
) -> Float[Array, " action"]:
    """sigma^2 (model(x, noisy action, t) - noise), sigma^2 = 1 - alpha_bar; it points away from the model's data.

    Its expectation over the noise is the gradient, with respect to the action, of the distance between the diffused
    action and the diffused data (Chen et al. 2024, "Score Regularized Policy Optimization through Diffusion Behavior",
    section 4).
    """
    signal = alpha_bar(time, beta_max)
    return (1 - signal) * (model(observation, noisy_action(action, noise, signal), time) - noise)


def posterior(
    clean: Float[Array, " action"],
    noisy: Float[Array, " action"],
    alpha_bar: Float[Array, ""],
    earlier_alpha_bar: Float[Array, ""],
) -> tuple[Float[Array, " action"], Float[Array, ""]]:
    """Mean and variance of the noisy action at an earlier time, given a later one and the data action.

    **Arguments:** `alpha_bar`, that of `noisy`; `earlier_alpha_bar`, that of the earlier time, at least as large.
    The two times need not be neighbours on a grid.

    **Returns:** with alpha = `alpha_bar / earlier_alpha_bar`, the mean (sqrt(earlier_alpha_bar) (1 - alpha) clean +
    sqrt(alpha) (1 - earlier_alpha_bar) noisy) / (1 - alpha_bar) and the variance (1 - alpha) (1 - earlier_alpha_bar) /
    (1 - alpha_bar) (Ho et al. 2020, equation 7).
    """
    alpha = alpha_bar / earlier_alpha_bar
    mean = jnp.sqrt(earlier_alpha_bar) * (1 - alpha) * clean + jnp.sqrt(alpha) * (1 - earlier_alpha_bar) * noisy
    return mean / (1 - alpha_bar), (1 - alpha) * (1 - earlier_alpha_bar) / (1 - alpha_bar)


def sample(
    model: NoisePrediction,
    observation: Float[Array, " observation"],
    noise: Float[Array, "steps action"],
    beta_max: Scalar,
) -> Float[Array, " action"]:
    """An action in [-1, 1] by ancestral sampling, one step for each row of `noise`.

    **Arguments:** `noise`, standard normal: the first row is the noisy action at time 1, and each other row is the
    noise that one step adds.

    The times are 1, 1 - 1 / steps, .., 1 / steps. Each step's estimate of the data action is clipped to [-1, 1].
    """
    steps = noise.shape[0]
    times = jnp.arange(steps, -1, -1, noise.dtype) / steps
    alpha_bars = alpha_bar(times, beta_max)

    def estimate(noisy, index):
        clean = clean_action(noisy, model(observation, noisy, times[index]), alpha_bars[index])
        return jnp.clip(clean, -1.0, 1.0)

    noisy = noise[0]
    for index in range(steps - 1):
        mean, variance = posterior(estimate(noisy, index), noisy, alpha_bars[index], alpha_bars[index + 1])
        noisy = mean + jnp.sqrt(variance) * noise[index + 1]
    return estimate(noisy, steps - 1)  # at time 0 the posterior is the data action itself
