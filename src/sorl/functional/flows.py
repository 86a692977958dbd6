"""Flows from noise to action: the straight path, flow matching of a velocity field, and Euler's method.

Sources: Lipman et al., "Flow Matching for Generative Modeling" (2023); Liu et al., "Flow Straight and Fast" (2023);
Park et al., "Flow Q-Learning" (2025), section 3. All functions take one example or a batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


Field = Callable[[Array, Array, Array], Array]
"""Velocity from (observation, action, time); a `VelocityField` or any function like it."""

MOST_UNROLLED = 32
"""Most steps that are compiled one after another; more of them are a loop, because to compile 1,000 takes minutes."""


def interpolate(
    noise: Float[Array, "*batch action"],
    action: Float[Array, "*batch action"],
    time: Float[Array, "*batch"],
    *,
    noise_floor: float = 0.0,
) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch action"]]:
    """The straight path from noise (time 0) to a data action (time 1): the point at `time`, and its velocity.

    `noise_floor` is the share of the noise that remains at time 1.
    """
    kept = 1 - noise_floor
    return (1 - kept * time[..., None]) * noise + time[..., None] * action, action - kept * noise


def real(values: ArrayLike) -> Float[Array, "..."]:
    """An array of real numbers: whole numbers are converted, because their type would round the times of a flow."""
    array = jnp.asarray(values)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def integrate(
    velocity: Callable[[Array, Array], Array], start: Float[Array, "*batch action"], steps: int, *, clip: bool = True
) -> Float[Array, "*batch action"]:
    """Integrates `velocity(action, time)` from time 0 to 1 in `steps` equal Euler steps.

    The result is clipped to [-1, 1] once, after the last step; `clip=False` omits that.

    Raises a `ValueError` for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"The number of steps is {steps}; give at least 1.")
    action = start = real(start)

    def step(action, time):
        return action + (1 / steps) * velocity(action, time), None

    times = [index / steps for index in range(steps)]
    if steps > MOST_UNROLLED:
        action, _ = jax.lax.scan(step, start, jnp.asarray(times, start.dtype))
    else:
        for time in times:
            action, _ = step(action, jnp.asarray(time, start.dtype))
    return jnp.clip(action, -1.0, 1.0) if clip else action


def sample(
    field: Field, observation: Float[Array, "*batch observation"], noise: Float[Array, "*batch action"], steps: int
) -> Float[Array, "*batch action"]:
    """The action in [-1, 1] that the flow maps `noise` to, in `steps` Euler steps."""
    return integrate(lambda action, time: field(observation, action, time), noise, steps)


def flow_matching_errors(
    field: Field,
    observation: Float[Array, "*batch observation"],
    action: Float[Array, "*batch action"],
    noise: Float[Array, "*batch action"],
    time: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """The squared error of the field against each path's velocity, averaged over action dimensions."""
    point, velocity = interpolate(noise, action, time)
    return jnp.mean((field(observation, point, time) - velocity) ** 2, axis=-1)
