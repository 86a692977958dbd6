"""Paths, Euler's method and flow matching, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import flows, shortcut


NOTHING = jnp.zeros(1)
"""An observation for fields that ignore it."""


def test_interpolate_at_hand_computed_points(x64):
    noise, action = jnp.array([2.0, -1.0]), jnp.array([0.5, 0.5])
    point, velocity = flows.interpolate(noise, action, jnp.array(0.25))
    np.testing.assert_allclose(point, [1.625, -0.625], rtol=1e-12)
    np.testing.assert_allclose(velocity, [-1.5, 1.5], rtol=1e-12)
    end, _ = flows.interpolate(noise, action, jnp.array(1.0))
    np.testing.assert_array_equal(end, action)
    end, velocity = flows.interpolate(noise, action, jnp.array(1.0), noise_floor=0.1)
    np.testing.assert_allclose(end, action + 0.1 * noise, rtol=1e-12)
    np.testing.assert_allclose(velocity, action - 0.9 * noise, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_eulers_method_on_closed_forms(x64, steps):
    start = jnp.array([0.5, -0.25])
    constant = flows.integrate(lambda a, t: jnp.ones_like(a), start, steps, clip=False)
    np.testing.assert_allclose(constant, start + 1, rtol=1e-12)
    growth = flows.integrate(lambda a, t: a, start, steps, clip=False)
    np.testing.assert_allclose(growth, start * (1 + 1 / steps) ** steps, rtol=1e-12)
    # Times are those at which the steps begin: the sum of 2 i / n^2 over i < n.
    timed = flows.integrate(lambda a, t: 2 * t * jnp.ones_like(a), start, steps, clip=False)
    np.testing.assert_allclose(timed, start + (steps - 1) / steps, rtol=1e-12)


@pytest.mark.parametrize("steps", [flows.MOST_UNROLLED, flows.MOST_UNROLLED + 1, 1000])
def test_many_steps_are_a_loop_that_gives_what_single_steps_give(x64, steps):
    def velocity(action, time):
        return (1 + time) * action

    def sampled(start):
        return flows.integrate(velocity, start, steps, clip=False)

    start = jnp.array([0.01, -0.02])
    expected = np.array(start) * np.prod([1 + (1 + index / steps) / steps for index in range(steps)])
    np.testing.assert_allclose(sampled(start), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda start: sampled(start).sum())(start), expected / start, rtol=1e-12)
    # A program of 1,000 steps one after another takes minutes to compile.
    assert (len(jax.make_jaxpr(sampled)(start).eqns) < 10) == (steps > flows.MOST_UNROLLED)


def test_only_the_end_is_clipped():
    def there_and_back(observation, action, time):
        return jnp.where(time < 0.5, 6.0, -6.0) * jnp.ones_like(action)

    start = jnp.array([0.5, 2.0])
    np.testing.assert_array_equal(flows.sample(there_and_back, NOTHING, start, 2), [0.5, 1.0])


def test_a_shortcut_field_without_a_step_size_is_a_flow():
    def velocity(observation, action, time):
        return jnp.sin(3 * action + time)

    noise = jnp.array([0.3, -0.6])
    jumped = shortcut.sample(lambda x, a, t, log2_steps: velocity(x, a, t), NOTHING, noise, 4)
    np.testing.assert_array_equal(jumped, flows.sample(velocity, NOTHING, noise, 4))


def test_flow_matching_errors_at_hand_computed_points():
    observation = jnp.array([[1.0], [2.0]])
    action, noise = jnp.array([[0.5, 0.0], [1.0, 1.0]]), jnp.array([[-0.5, 1.0], [0.0, 0.0]])
    time = jnp.array([0.5, 0.25])

    def field(observation, action, time):
        return observation[0] * action + time

    # Row 1: point (0, 0.5), answer (0.5, 1), velocity (1, -1): squares 0.25 and 4.
    # Row 2: point (0.25, 0.25), answer (0.75, 0.75), velocity (1, 1): squares 0.0625.
    errors = flows.flow_matching_errors(jax.vmap(field), observation, action, noise, time)
    np.testing.assert_allclose(errors, [2.125, 0.0625], rtol=1e-6)


def test_the_best_field_for_one_action_has_no_error_and_lands_on_it():
    target = jnp.array([0.25, -0.75])

    def field(observation, action, time):
        return (target - action) / (1 - time)

    noise = jax.random.normal(jax.random.key(0), (64, 2))
    time = jax.random.uniform(jax.random.key(1), (64,)) * 0.9
    actions = jnp.broadcast_to(target, noise.shape)
    errors = flows.flow_matching_errors(jax.vmap(field), jnp.zeros((64, 1)), actions, noise, time)
    np.testing.assert_allclose(errors, 0.0, atol=1e-9)
    landed = jax.vmap(lambda n: flows.sample(field, NOTHING, n, 10))(noise)
    np.testing.assert_allclose(landed, actions, atol=1e-5)
