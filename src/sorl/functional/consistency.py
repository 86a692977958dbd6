"""Consistency models as policies: one network that maps an action with any amount of noise to the data.

A noisy action at time t is a + t noise, t in [`SIGMA_MIN`, `SIGMA_MAX`]. The consistency function f answers every
point of one noise path with the path's data action (Song et al. 2023, "Consistency Models"; for policies Ding & Jin
2024, "Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning"). All functions take one
example; the caller vmaps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


Network = Callable[[Array, Array, Array], Array]
"""F in f(a, t) = c_skip(t) a + c_out(t) F: from (observation, scaled noisy action, noise level) to an action."""

SIGMA_MIN = 0.002
"""Where a noisy action counts as data: f is the identity there."""
SIGMA_MAX = 80.0
"""Where a noisy action counts as pure noise."""
SIGMA_DATA = 0.5
"""The standard deviation that the data actions are taken to have."""
_LAST_SAMPLING_TIME = 2.0
_RHO = 7.0
"""How much finer the time grid is at small times."""
_FIRST_POINTS, _LAST_POINTS = 2, 150
"""Size of the time grid at the start and the end of training."""


def denoise(
    network: Network, observation: Float[Array, " observation"], noisy: Float[Array, " action"], time: Float[Array, ""]
) -> Float[Array, " action"]:
    """The consistency function f(x, a, t), which is a at t = `SIGMA_MIN` whatever the network.

    c_skip = s^2 / ((t - e)^2 + s^2) and c_out = s (t - e) / sqrt(t^2 + s^2), with s = `SIGMA_DATA` and e =
    `SIGMA_MIN` (Song et al. 2023, appendix C); the network sees the action scaled by 1 / sqrt(t^2 + s^2) and ln(t) / 4
    (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", table 1).
    """
    variance = SIGMA_DATA**2
    skip = variance / ((time - SIGMA_MIN) ** 2 + variance)
    deviation = jnp.sqrt(time**2 + variance)
    out = SIGMA_DATA * (time - SIGMA_MIN) / deviation
    return skip * noisy + out * network(observation, noisy / deviation, jnp.log(time) / 4)


def grid_points(step: Int[Array, ""], last_step: float | Float[Array, ""]) -> Float[Array, ""]:
    """N, the size of the training grid at an update: from 2 at the first to 150 at `last_step`, and there it stays.

    N = ceil(sqrt(k / K ((s + 1)^2 - r^2) + r^2) - 1) + 1, with r = 2 and s = 149 (Song et al. 2023, appendix C).
    """
    progress = jnp.minimum(step.astype(jnp.float32) / last_step, 1.0)
    squares = progress * (_LAST_POINTS**2 - _FIRST_POINTS**2) + _FIRST_POINTS**2
    return jnp.ceil(jnp.sqrt(squares) - 1) + 1


def grid_time(index: Float[Array, ""], points: Float[Array, ""]) -> Float[Array, ""]:
    """The time of a point of the grid: `SIGMA_MIN` at index 0, `SIGMA_MAX` at `points - 1` (Karras et al., eq. 5)."""
    low, high = SIGMA_MIN ** (1 / _RHO), SIGMA_MAX ** (1 / _RHO)
    return (low + index / (points - 1) * (high - low)) ** _RHO


def consistency_loss(
    network: Network,
    teacher: Network,
    observation: Float[Array, " observation"],
    action: Float[Array, " action"],
    noise: Float[Array, " action"],
    time: Float[Array, ""],
    next_time: Float[Array, ""],
) -> Float[Array, ""]:
    """Consistency training: at `next_time` the network answers as the teacher does at `time`, on the same noise path.

    The squared difference, averaged over action dimensions; no gradient to the teacher (Song et al. 2023, algorithm 3).
    """
    answer = denoise(network, observation, action + next_time * noise, next_time)
    target = denoise(teacher, observation, action + time * noise, time)
    return jnp.mean((answer - jax.lax.stop_gradient(target)) ** 2)


def sample(
    network: Network, observation: Float[Array, " observation"], noise: Float[Array, "steps action"]
) -> Float[Array, " action"]:
    """An action in [-1, 1] by multistep consistency sampling, one step for each row of `noise`.

    Each step adds noise up to its time and denoises to the data at once; the times go from `SIGMA_MAX` down to 2 in
    equal steps (Song et al. 2023, algorithm 1; times as in the released code of Ding & Jin).
    """
    times = jnp.linspace(SIGMA_MAX, _LAST_SAMPLING_TIME, noise.shape[0], dtype=noise.dtype)
    action = denoise(network, observation, SIGMA_MAX * noise[0], times[0])
    for index in range(1, noise.shape[0]):
        added = jnp.sqrt(times[index] ** 2 - SIGMA_MIN**2)
        action = denoise(network, observation, action + added * noise[index], times[index])
    return jnp.clip(action, -1.0, 1.0)
