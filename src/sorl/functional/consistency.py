"""Consistency models as policies: one network that maps an action with any amount of noise to the data.

A noisy action at time t is a + t noise, t in [`SIGMA_MIN`, `SIGMA_MAX`]. The consistency function f maps every point of
a noise path to the path's data action (Song et al. 2023, "Consistency Models"; for policies, Ding & Jin 2024,
"Consistency Models as a Rich and Efficient Policy Class for Reinforcement Learning"). All functions take one example;
the caller uses `vmap`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


Network = Callable[[Array, Array, Array], Array]
"""F in f(a, t) = c_skip(t) a + c_out(t) F: from (observation, scaled noisy action, noise level) to an action."""

SIGMA_MIN = 0.002
"""The time at which a noisy action counts as data: f is the identity there."""
SIGMA_MAX = 80.0
"""The time at which a noisy action counts as pure noise."""
SIGMA_DATA = 0.5
"""The assumed standard deviation of the data actions."""
_LAST_SAMPLING_TIME = 2.0
_RHO = 7.0
"""The exponent of the time grid; a larger one makes the grid finer at small times."""
_FIRST_POINTS, _LAST_POINTS = 2, 150
"""Number of points of the time grid at the start and the end of training."""


def denoise(
    network: Network, observation: Float[Array, " observation"], noisy: Float[Array, " action"], time: Float[Array, ""]
) -> Float[Array, " action"]:
    """The consistency function f(x, a, t), which equals a at t = `SIGMA_MIN` for any network.

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
    """N, the number of grid points at an update: it grows from 2 at the first update to 150 at `last_step`.

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
    """The consistency training loss: the network at `next_time` against the teacher at `time`, on one noise path.

    It is the squared difference, averaged over action dimensions, without a gradient to the teacher (Song et al. 2023,
    algorithm 3).
    """
    answer = denoise(network, observation, action + next_time * noise, next_time)
    target = denoise(teacher, observation, action + time * noise, time)
    return jnp.mean((answer - jax.lax.stop_gradient(target)) ** 2)


def sample(
    network: Network, observation: Float[Array, " observation"], noise: Float[Array, "steps action"]
) -> Float[Array, " action"]:
    """An action in [-1, 1] by multistep consistency sampling, one step for each row of `noise`.

    Each step adds noise up to its time and applies f, which removes all of it. The times decrease from `SIGMA_MAX` to 2
    in equal steps (Song et al. 2023, algorithm 1; times as in the released code of Ding & Jin).
    """
    times = jnp.linspace(SIGMA_MAX, _LAST_SAMPLING_TIME, noise.shape[0], dtype=noise.dtype)
    action = denoise(network, observation, SIGMA_MAX * noise[0], times[0])
    for index in range(1, noise.shape[0]):
        added = jnp.sqrt(times[index] ** 2 - SIGMA_MIN**2)
        action = denoise(network, observation, action + added * noise[index], times[index])
    return jnp.clip(action, -1.0, 1.0)
