import jax
import jax.numpy as jnp
import numpy as np

from sorl.functional.means import mean_over


VALUES = jnp.array([[1.0, 3.0], [-2.0, 4.0], [50.0, 60.0]])


def test_the_mean_of_the_rows_that_are_valid():
    assert mean_over(VALUES, None) == jnp.mean(VALUES)
    assert mean_over(VALUES, jnp.array([1.0, 1.0, 0.0])) == 1.5
    assert mean_over(VALUES[:, 0], jnp.array([0.0, 1.0, 1.0])) == 24.0
    assert mean_over(VALUES, jnp.zeros(3)) == 0.0


def test_a_row_that_is_not_valid_gets_no_gradient():
    gradient = jax.grad(lambda values: mean_over(values**2, jnp.array([1.0, 0.0, 1.0])))(VALUES)
    np.testing.assert_allclose(gradient, VALUES / 2 * np.array([[1.0], [0.0], [1.0]]))
