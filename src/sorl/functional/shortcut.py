"""Shortcut models as policies: jumps, sampling, and the two regressions that train them.

Flow matching trains the velocity at the finest step; self-consistency trains every larger step to equal two half steps
(Frans et al. 2024, "One Step Diffusion via Shortcut Models"; SORL, section 3). Both are regressions of the field on a
target at a query point, so both build a `Query`. All functions take one example or a batch.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sorl.functional import flows


Field = Callable[[Array, Array, Array, Array], Array]
"""Average velocity from (observation, action, time, log2 steps); a `ShortcutField` or any function like it."""

NOISE_FLOOR = 1e-5
"""Share of the noise that remains at time 1, so that the path never degenerates (e in the formulas)."""


class Query(eqx.Module):
    """The inputs of the field and its target velocity; one example, or a batch (leading axes)."""

    observation: Float[Array, "*batch observation"]
    action: Float[Array, "*batch action"]
    """Partly denoised action a^t."""
    time: Float[Array, "*batch"]
    log2_steps: Float[Array, "*batch"]
    """Step size h = 2^-log2_steps."""
    velocity: Float[Array, "*batch action"]


def jump(
    field: Field,
    observation: Float[Array, "*batch observation"],
    action: Float[Array, "*batch action"],
    time: Float[Array, "*#batch"],
    log2_steps: Float[Array, "*#batch"],
    step_size: Float[Array, ""] | float,
) -> Float[Array, "*batch action"]:
    """One jump, a^(t+h) = a^t + h s(a^t, t, h | x), with h = `step_size`; `log2_steps` is the field's input."""
    return action + step_size * field(observation, action, time, log2_steps)


def sample(
    field: Field,
    observation: Float[Array, "*batch observation"],
    noise: Float[Array, "*batch action"],
    steps: int,
    *,
    conditioning: int | None = None,
    clip: bool = True,
) -> Float[Array, "*batch action"]:
    """F(x, a^0, k): an action from noise by `steps` equal jumps, clipped to [-1, 1] once, after the last.

    **Arguments:** `steps`, the number of jumps k; `conditioning`, the number of steps that the field gets as its input,
    for budgets beyond those trained (default: k); `clip=False` omits the clipping.

    Raises a `ValueError` for fewer than one jump, or an input below 1.
    """
    shown = steps if conditioning is None else conditioning
    if min(steps, shown) < 1:
        raise ValueError(f"The number of jumps is {steps}, with the input {shown} for the field; give at least 1.")
    noise = flows.real(noise)
    # Computed by Python: jnp.log2(8) need not be exactly 3.
    log2_steps = jnp.asarray(math.log2(shown), noise.dtype)
    return flows.integrate(lambda action, time: field(observation, action, time, log2_steps), noise, steps, clip=clip)


def renoised_sample(
    field: Field,
    observation: Float[Array, "*batch observation"],
    noise: Float[Array, "steps *batch action"],
    finest_steps: int,
    *,
    clip: bool = True,
) -> Float[Array, "*batch action"]:
    """An action by a chain of re-noised jumps, one for each row of `noise`, clipped to [-1, 1] once, after the last.

    For j = 0, 1, .., with t_j = 1 - 2^-j and fresh noise z_j: x_j = t_j a_j + (1 - t_j) z_j, and a_(j+1) = x_j +
    2^-j s(x_j, t_j, 2^-j | x). Each jump starts on the straight path between noise and the last estimate a_j of the
    action, and ends at time 1. So if a_j is distributed as the data, every query is distributed as a training query.
    As t_0 = 0, the first jump is `sample` in one step.

    **Arguments:** `finest_steps`, the steps of the finest trained grid: with 8, four jumps have its four sizes, and all
    later ones have the smallest size too.
    """
    action = noise[0]
    for index, fresh in enumerate(noise):
        level = min(index, finest_steps.bit_length() - 1)
        size = 2.0**-level
        point, _ = flows.interpolate(fresh, action, jnp.full(action.shape[:-1], 1 - size, action.dtype))
        time, log2_steps = (jnp.asarray(number, action.dtype) for number in (1 - size, float(level)))
        action = jump(field, observation, point, time, log2_steps, size)
    return jnp.clip(action, -1.0, 1.0) if clip else action


def interpolate(
    noise: Float[Array, "*batch action"], action: Float[Array, "*batch action"], time: Float[Array, "*batch"]
) -> tuple[Float[Array, "*batch action"], Float[Array, "*batch action"]]:
    """The straight path from noise (time 0) to a data action (time 1): the point at `time`, and its velocity."""
    return flows.interpolate(noise, action, time, noise_floor=NOISE_FLOOR)


def flow_matching_query(
    observation: Float[Array, "*batch observation"],
    action: Float[Array, "*batch action"],
    noise: Float[Array, "*batch action"],
    time: Float[Array, "*batch"],
    finest_steps: int,
) -> Query:
    """Flow matching: at the finest step the target is the velocity of the path (SORL, flow-matching loss)."""
    point, velocity = interpolate(noise, action, time)
    return Query(observation, point, time, jnp.full(time.shape, math.log2(finest_steps), time.dtype), velocity)


def self_consistency_target(
    teacher: Field,
    observation: Float[Array, "*batch observation"],
    action: Float[Array, "*batch action"],
    time: Float[Array, "*batch"],
    log2_steps: Float[Array, "*batch"],
) -> Float[Array, "*batch action"]:
    """The average of the teacher's velocities over two half steps from `action` at `time`, without a gradient.

    The whole step is d = 2^-log2_steps, and each half step d / 2 (SORL, self-consistency loss).
    """
    half = jnp.exp2(-log2_steps) / 2
    first = teacher(observation, action, time, log2_steps + 1)
    midpoint = action + half[..., None] * first
    second = teacher(observation, midpoint, time + half, log2_steps + 1)
    return jax.lax.stop_gradient((first + second) / 2)


def self_consistency_query(
    teacher: Field,
    observation: Float[Array, "*batch observation"],
    action: Float[Array, "*batch action"],
    noise: Float[Array, "*batch action"],
    time: Float[Array, "*batch"],
    log2_steps: Float[Array, "*batch"],
) -> Query:
    """Self-consistency: over a step of 2^-log2_steps the target is the teacher's average over two half steps."""
    point, _ = interpolate(noise, action, time)
    velocity = self_consistency_target(teacher, observation, point, time, log2_steps)
    return Query(observation, point, time, log2_steps, velocity)


def query_errors(field: Field, query: Query) -> Float[Array, "*batch"]:
    """The field's squared error at each query, averaged over action dimensions."""
    velocity = field(query.observation, query.action, query.time, query.log2_steps)
    return jnp.mean((velocity - query.velocity) ** 2, axis=-1)


def flow_matching_loss(
    field: Field,
    observation: Float[Array, "*batch observation"],
    action: Float[Array, "*batch action"],
    noise: Float[Array, "*batch action"],
    time: Float[Array, "*batch"],
    finest_steps: int,
) -> Float[Array, ""]:
    """The flow-matching loss of a batch: the mean square over batch and action dimensions."""
    return jnp.mean(query_errors(field, flow_matching_query(observation, action, noise, time, finest_steps)))


def self_consistency_loss(
    field: Field,
    teacher: Field,
    observation: Float[Array, "*batch observation"],
    action: Float[Array, "*batch action"],
    noise: Float[Array, "*batch action"],
    time: Float[Array, "*batch"],
    log2_steps: Float[Array, "*batch"],
) -> Float[Array, ""]:
    """The self-consistency loss of a batch: the mean square over batch and action dimensions."""
    return jnp.mean(query_errors(field, self_consistency_query(teacher, observation, action, noise, time, log2_steps)))
