import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional.fitted_q import fitted_q_target, standardised_reward


NEXT_Q = jnp.array([[1.0, 3.0], [-2.0, 4.0]])


@pytest.mark.parametrize("transform", [jax.jit, lambda function: function])
def test_each_head_has_its_own_target_and_a_termination_has_no_next_value(transform):
    target = transform(fitted_q_target)(jnp.array([-1.0, 2.0]), jnp.array([0.5, 0.0]), NEXT_Q)
    np.testing.assert_array_equal(target, [[-0.5, 0.5], [2.0, 2.0]])


def test_the_target_has_no_gradient():
    ones = jnp.ones(2)
    gradient = jax.grad(lambda next_q: jnp.sum(fitted_q_target(ones, ones, next_q)))(NEXT_Q)
    np.testing.assert_array_equal(gradient, jnp.zeros((2, 2)))


def test_the_standardised_reward_leads_to_the_standardised_value():
    reward, discount, q = jnp.array([-1.0, 3.0]), jnp.array([0.9, 0.0]), jnp.array([[-40.0], [7.0]])
    centre, scale = -50.0, 4.0
    target = fitted_q_target(standardised_reward(reward, discount, centre, scale), discount, (q - centre) / scale)
    # -1 + 0.9 * -40 = -37 and 3, in units of (Q + 50) / 4.
    np.testing.assert_allclose(target, [[13 / 4], [53 / 4]], rtol=1e-6)
