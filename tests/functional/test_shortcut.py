import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import shortcut

from ..random_networks import OBSERVATION_SIZE, directional_derivatives, make_field


STEP_COUNTS = (1, 2, 4, 8)
NOTHING = jnp.zeros(1)
"""An observation for fields that ignore it."""


def _linear_field():
    """The exact average velocity of da/dt = A a + b, and where its flow takes `action` from time 0 to 1."""
    # A = V diag(rates) V^-1, so that exp(A h) needs no more than exp(rates h).
    rates, vectors, drift = np.array([-1.0, 0.5]), np.array([[1.0, 2.0], [-0.5, 1.0]]), np.array([0.4, -0.7])
    inverse = np.linalg.inv(vectors)
    fixed_point = -vectors @ (inverse @ drift / rates)

    def growth(step):
        return vectors @ jnp.diag(jnp.exp(rates * step)) @ inverse

    def field(observation, action, time, log2_steps):
        step = 2.0**-log2_steps
        return (growth(step) - jnp.eye(2)) @ (action - fixed_point) / step

    return field, lambda action: fixed_point + growth(1.0) @ (action - fixed_point)


def _timed_field(observation, action, time, log2_steps):
    """The exact average velocity of da/dt = 3 t^2, whose flow adds 1 from time 0 to 1."""
    step = 2.0**-log2_steps
    return jnp.ones_like(action) * ((time + step) ** 3 - time**3) / step


def _queries(log2_steps):
    """Noise and times for self-consistency at a step of 2^-log2_steps."""
    times = np.arange(2**log2_steps) / 2**log2_steps
    noise, levels = np.linspace(-1, 1, 2 * len(times)).reshape(-1, 2), np.full(len(times), float(log2_steps))
    return jnp.asarray(noise), jnp.asarray(times), jnp.asarray(levels)


@pytest.mark.parametrize("log2_steps", [0, 1, 2])
def test_exact_average_velocities_are_self_consistent(x64, log2_steps):
    noise, times, levels = _queries(log2_steps)
    example = jnp.zeros((len(times), 1)), 0.5 * jnp.ones_like(noise), noise, times, levels
    linear_field, _ = _linear_field()
    timed_field = jax.vmap(_timed_field)
    for field in (jax.vmap(linear_field), timed_field):
        # The square of rounding errors.
        assert jax.jit(lambda f=field: shortcut.self_consistency_loss(f, f, *example))() < 1e-24

    def teacher_off_by_a_tenth(observation, action, time, log2_steps):
        return timed_field(observation, action, time, log2_steps) + 0.1

    loss = jax.jit(lambda: shortcut.self_consistency_loss(timed_field, teacher_off_by_a_tenth, *example))()
    assert loss == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_jumps_of_the_exact_average_velocity_land_on_the_flow(x64, steps):
    field, flow = _linear_field()
    action = jnp.array([0.3, -1.2])
    landed = shortcut.sample(field, NOTHING, action, steps, clip=False)
    np.testing.assert_allclose(landed, flow(action), rtol=1e-12)
    np.testing.assert_allclose(
        shortcut.sample(_timed_field, NOTHING, action, steps, clip=False), action + 1, rtol=1e-12
    )


def test_jump_adds_the_step_size_times_the_velocity(maybe_jit):
    def field(observation, action, time, log2_steps):
        return observation + action + time + log2_steps

    landed = maybe_jit(lambda x, a, t, level: shortcut.jump(field, x, a, t, level, 0.25))(
        jnp.array([8.0]), jnp.array([4.0]), jnp.array(2.0), jnp.array(1.0)
    )
    np.testing.assert_array_equal(landed, [4.0 + 0.25 * 15.0])


@pytest.mark.parametrize("steps", STEP_COUNTS)
@pytest.mark.parametrize("conditioning", [None, 2])
def test_sample_shows_the_field_exact_times_and_step_counts(steps, conditioning):
    shown = []

    def field(observation, action, time, log2_steps):
        shown.append((float(time), float(log2_steps)))
        return jnp.zeros_like(action)

    shortcut.sample(field, NOTHING, jnp.zeros(1), steps, conditioning=conditioning)
    assert shown == [(i / steps, math.log2(conditioning or steps)) for i in range(steps)]


def test_whole_number_noise_has_the_times_of_real_noise():
    def field(observation, action, time, log2_steps):
        return (0.5 - action) / (1 - time) + 0 * log2_steps

    # The velocity towards 0.5 reaches it exactly at time 1; with times rounded to 0 it would not.
    sample: Any = shortcut.sample
    unchecked = sample.__wrapped__  # as users call it, without jaxtyping's checks
    np.testing.assert_allclose(unchecked(field, jnp.zeros(3), jnp.array([1, -2]), 4), [0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(("steps", "conditioning"), [(0, None), (-1, None), (2, 0)])
def test_fewer_than_one_jump_is_refused(steps, conditioning):
    with pytest.raises(ValueError, match="The number of jumps is .*; give at least 1"):
        shortcut.sample(lambda *given: given[1], jnp.zeros(3), jnp.zeros(2), steps, conditioning=conditioning)


def test_sample_clips_once_after_the_last_jump(maybe_jit):
    # Out to 3 at the half, then back by 2.5: a clip on the way would end at -1.
    def field(observation, action, time, log2_steps):
        return jnp.where(time < 0.5, 6.0, -5.0) * jnp.ones_like(action)

    def sample(noise, clip):
        return maybe_jit(lambda n: shortcut.sample(field, NOTHING, n, 2, clip=clip))(noise)

    np.testing.assert_array_equal(sample(jnp.array([0.0]), True), [0.5])
    np.testing.assert_array_equal(sample(jnp.array([2.0, -2.0]), True), [1.0, -1.0])
    np.testing.assert_array_equal(sample(jnp.array([2.0, -2.0]), False), [2.5, -1.5])


def test_interpolate_at_hand_computed_points(x64, maybe_jit):
    noise, action = jnp.array([2.0, -1.0]), jnp.array([0.5, 0.5])
    point, velocity = maybe_jit(shortcut.interpolate)(noise, action, jnp.array(0.25))
    # (1 - 0.99999 * 0.25) * noise + 0.25 * action, and action - 0.99999 * noise.
    np.testing.assert_allclose(point, [1.625005, -0.6250025], rtol=1e-12)
    np.testing.assert_allclose(velocity, [-1.49998, 1.49999], rtol=1e-12)
    end, _ = shortcut.interpolate(noise, action, jnp.array(1.0))
    np.testing.assert_allclose(end, action + 1e-5 * noise, rtol=1e-12)


def test_flow_matching_asks_at_the_finest_step(maybe_jit):
    query = maybe_jit(lambda x, a, n, t: shortcut.flow_matching_query(x, a, n, t, 8))(
        NOTHING, jnp.array([0.5]), jnp.array([2.0]), jnp.array(0.25)
    )
    assert (query.time, query.log2_steps) == (0.25, 3.0)


def test_query_errors_average_squares_over_action_dimensions(maybe_jit):
    query = shortcut.Query(NOTHING, jnp.zeros(2), jnp.array(0.0), jnp.array(0.0), jnp.array([1.0, 2.0]))
    loss = maybe_jit(lambda q: shortcut.query_errors(lambda x, a, t, level: jnp.array([2.0, 5.0]), q))(query)
    assert loss == (1.0 + 9.0) / 2


def test_batch_losses_average_over_rows(x64):
    def field(observation, action, time, log2_steps):
        return observation * jnp.ones_like(action)

    observation, zeros, time = jnp.array([[1.0], [3.0]]), jnp.zeros((2, 2)), jnp.zeros(2)
    # Without noise or action every target velocity is 0; a teacher of 0 makes the other target 0 too.
    assert shortcut.flow_matching_loss(field, observation, zeros, zeros, time, 8) == 5.0
    still = shortcut.self_consistency_loss(
        field, lambda x, a, t, level: jnp.zeros_like(a), observation, zeros, zeros, time, time
    )
    assert still == 5.0


def test_teacher_makes_two_half_steps():
    shown = []

    def teacher(observation, action, time, log2_steps):
        shown.append((float(action[0]), float(time), float(log2_steps)))
        return jnp.array([4.0]) * (1 + time)

    target = shortcut.self_consistency_target(teacher, NOTHING, jnp.array([1.0]), jnp.array(0.5), jnp.array(1.0))
    # Steps of 1/4 from time 1/2: velocity 6, then 7 at 1 + 6/4.
    assert shown == [(1.0, 0.5, 2.0), (2.5, 0.75, 2.0)]
    np.testing.assert_array_equal(target, [6.5])


def test_self_consistency_has_no_gradient_into_its_target():
    field, actions = make_field(), jnp.ones((4, 2))
    batch = jnp.ones((4, OBSERVATION_SIZE)), actions, 0 * actions, jnp.zeros(4), jnp.zeros(4)

    @jax.jit
    def gradients(field):
        def loss(student, teacher):
            return shortcut.self_consistency_loss(student, teacher, *batch)

        return jax.grad(loss, argnums=(0, 1))(field, field), jax.grad(lambda both: loss(both, both))(field)

    (student, teacher), both = gradients(field)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(teacher))
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(student))
    for a, b in zip(jax.tree.leaves(student), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


# The data action is N(MEAN, DEVIATION^2), independent of the noise: E[v | a^t] is linear in a^t.
MEAN, DEVIATION = 0.3, 0.4


def _gaussian_moments(time):
    kept = 1 - shortcut.NOISE_FLOOR
    variance = (1 - kept * time) ** 2 + (time * DEVIATION) ** 2
    covariance = time * DEVIATION**2 - kept * (1 - kept * time)
    return variance, covariance


def _gaussian_field(observation, action, time, log2_steps):
    """E[v | a^t] = mean + cov(v, a^t) / var(a^t) (a^t - E a^t)."""
    variance, covariance = _gaussian_moments(time)
    return MEAN + covariance / variance * (action - time * MEAN)


def test_flow_matching_is_least_at_the_conditional_mean_velocity(x64):
    # Four points with the moments of both Gaussians, at each time: for a linear field the expectation is exact.
    noise, action, time = np.meshgrid([-1.0, 1.0], [MEAN - DEVIATION, MEAN + DEVIATION], np.arange(8) / 8)
    columns = [jnp.asarray(x.reshape(-1, 1)) for x in (noise, action)]

    @jax.jit
    @jax.value_and_grad
    def loss(offsets):
        def field(observation, action, time, log2_steps):
            basis = jnp.stack([jnp.ones(()), action[0], time, time * action[0]])
            return _gaussian_field(observation, action, time, log2_steps) + offsets @ basis

        return shortcut.flow_matching_loss(
            jax.vmap(field), jnp.zeros((32, 1)), columns[1], columns[0], jnp.asarray(time.ravel()), 8
        )

    value, gradient = loss(jnp.zeros(4))
    times, kept = np.arange(8) / 8, 1 - shortcut.NOISE_FLOOR
    variance, covariance = _gaussian_moments(times)
    # What no field can explain: var(v) - cov(v, a^t)^2 / var(a^t).
    assert value == pytest.approx(np.mean(DEVIATION**2 + kept**2 - covariance**2 / variance), rel=1e-12)
    np.testing.assert_allclose(gradient, np.zeros(4), atol=1e-12)
    for offset in np.eye(4):
        assert loss(jnp.asarray(0.1 * offset))[0] > value + 1e-4


def test_many_small_steps_carry_the_noise_to_the_data_distribution(x64):
    noise = jnp.array([-2.0, -0.5, 0.0, 1.0])
    # The flow of a Gaussian keeps each point's standard score.
    exact = MEAN + math.hypot(DEVIATION, shortcut.NOISE_FLOOR) * noise
    coarse, fine = (shortcut.sample(_gaussian_field, NOTHING, noise, steps, clip=False) - exact for steps in (64, 128))
    # Euler's error falls with the step size; what is left after extrapolation falls with its square.
    assert jnp.abs(fine).max() < 0.015
    assert jnp.abs(2 * fine - coarse).max() < 2e-4


@pytest.mark.parametrize("steps", [2, 8])
def test_gradient_through_the_jumps_equals_finite_differences(x64, steps):
    networks, observation = make_field(3, jnp.float64), jnp.array([0.3, -0.6, 0.1])
    # The first action dimension ends beyond the clip, where the gradient is zero.
    noise = jnp.array([4.0, 0.2])

    @jax.jit
    def end_point(point):
        action = shortcut.sample(point[0], observation, point[1], steps)
        return jnp.sum(action**3), jnp.abs(action) == 1

    point = networks, noise
    gradient, clipped = jax.jit(jax.grad(end_point, has_aux=True))(point)
    np.testing.assert_array_equal(clipped, [True, False])
    analytic, numeric = directional_derivatives(lambda p: end_point(p)[0], point, gradient)
    assert analytic == pytest.approx(numeric, rel=1e-6)
    assert abs(analytic) > 1e-3


velocities = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=3)


@hypothesis.given(velocities, st.sampled_from(STEP_COUNTS))
@hypothesis.settings(deadline=None, max_examples=25)
def test_jumps_of_a_constant_field_are_one_jump(velocity, steps):
    def field(observation, action, time, log2_steps):
        return jnp.asarray(velocity, jnp.float32)

    noise = jnp.linspace(-1, 1, len(velocity))
    once, often = (shortcut.sample(field, NOTHING, noise, count, clip=False) for count in (1, steps))
    np.testing.assert_allclose(often, once, atol=1e-6)


@hypothesis.given(st.permutations(range(6)))
@hypothesis.settings(deadline=None, max_examples=25)
def test_permuting_the_batch_permutes_the_actions_and_keeps_the_losses(order):
    order = jnp.array(order)
    rows = jnp.linspace(-1, 1, 6 * 7).reshape(6, 7)
    columns = rows[:, :3], rows[:, 3:5], rows[:, 5:], jnp.arange(6) / 8, jnp.arange(6.0) % 3
    before, after = _batch_results(*columns), _batch_results(*(column[order] for column in columns))
    np.testing.assert_allclose(after[0], before[0][order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[1:], before[1:], rtol=1e-5)


@jax.jit
def _batch_results(observation, action, noise, time, log2_steps):
    field = make_field()
    return (
        jax.vmap(lambda x, n: shortcut.sample(field, x, n, 4))(observation, noise),
        shortcut.flow_matching_loss(field, observation, action, noise, time, 8),
        shortcut.self_consistency_loss(field, field, observation, action, noise, time, log2_steps),
    )


def _exact_gaussian_field(mean, deviation):
    """The exact average velocity of the flow from N(0, 1) to N(mean, deviation^2) on straight paths.

    At time t the law is N(t mean, s^2), s^2 = (1 - t)^2 + (t deviation)^2; the flow keeps (a - t mean) / s constant.
    """

    def spread(time):
        return jnp.sqrt((1 - time) ** 2 + (time * deviation) ** 2)

    def field(observation, action, time, log2_steps):
        step = jnp.exp2(-log2_steps)
        later = (time + step) * mean + spread(time + step) / spread(time) * (action - time * mean)
        return (later - action) / step

    return field


@pytest.mark.parametrize("jumps", [1, 2, 4])
def test_re_noised_jumps_reproduce_a_gaussian(x64, jumps):
    """A chain is affine in its noises: its law is the data's if the squared weights add up to the variance."""
    mean, deviation = jnp.array([0.3, -0.2]), jnp.array([0.05, 0.4])
    field = _exact_gaussian_field(mean, deviation)
    weights = [
        shortcut.renoised_sample(field, NOTHING, jnp.zeros((jumps, 2)).at[j].set(1.0), 4, clip=False) - mean
        for j in range(jumps)
    ]
    np.testing.assert_allclose(shortcut.renoised_sample(field, NOTHING, jnp.zeros((jumps, 2)), 4), mean, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(jnp.stack(weights) ** 2, axis=0), deviation**2, rtol=1e-12)
    # Later noises replace earlier ones: the last has a weight of its own, and none has all of it.
    assert jumps == 1 or all(np.all(np.abs(weight) > 0) for weight in weights)


def test_a_re_noised_chain_by_hand():
    """With a constant velocity v: a_1 = z_0 + v; a_2 = (a_1 + z_1) / 2 + v / 2; a_3 = (3 a_2 + z_2) / 4 + v / 4."""
    seen = []

    def field(observation, action, time, log2_steps):
        seen.append((action, float(time), float(log2_steps)))
        return jnp.full_like(action, 0.2)

    noise = jnp.array([[0.4], [-1.0], [2.0]])
    action = shortcut.renoised_sample(field, NOTHING, noise, 8, clip=False)
    np.testing.assert_allclose(action, [0.75 * -0.1 + 0.5 + 0.05], rtol=1e-6)
    np.testing.assert_allclose([float(at[0]) for at, _, _ in seen], [0.4, -0.2, 0.425], rtol=1e-6)
    assert [(time, level) for _, time, level in seen] == [(0.0, 0.0), (0.5, 1.0), (0.75, 2.0)]
    # On a grid of two steps, the third jump has the size of the second: (a_2 + z_2) / 2 + v / 2 for a_2 = -0.1.
    action = shortcut.renoised_sample(field, NOTHING, noise, 2, clip=False)
    np.testing.assert_allclose(action, [0.5 * -0.1 + 1.0 + 0.1], rtol=1e-6)
    assert seen[-1][1:] == (0.5, 1.0)
    np.testing.assert_array_equal(shortcut.renoised_sample(field, NOTHING, 9 * noise, 8), [1.0])


def test_a_chain_of_one_jump_is_a_sample_in_one_step_and_batches_are_rows():
    field, observations = make_field(), jnp.asarray(np.random.default_rng(0).normal(size=(4, OBSERVATION_SIZE)))
    noise = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 2)))
    renoised_sample = jax.jit(lambda x, z: shortcut.renoised_sample(field, x, z, 8))
    one = renoised_sample(observations, noise[:1])
    sample = jax.jit(lambda x, z: shortcut.sample(field, x, z, 1))
    np.testing.assert_array_equal(one, sample(observations, noise[0]))
    batch = renoised_sample(observations, noise)
    rows = [renoised_sample(x, z) for x, z in zip(observations, noise.swapaxes(0, 1), strict=True)]
    np.testing.assert_allclose(batch, np.stack(rows), atol=1e-6)
