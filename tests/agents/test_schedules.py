import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents.shared.schedules import cosine_decay, every, linear_decay


@pytest.mark.parametrize("interval, turns", [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [2, 5])])
def test_turns_come_at_every_so_many_updates(interval, turns):
    made = [step for step in range(6) if every(interval, jnp.int32(step), lambda x: x + 1, jnp.int32(0)) == 1]
    assert made == turns


def test_a_turn_that_all_seeds_share_stays_a_branch():
    def seed(x, step):
        return every(2, step, jnp.sin, x)

    traced = jax.make_jaxpr(jax.vmap(seed, in_axes=(0, None)))(jnp.ones(3), jnp.int32(0))
    assert [equation.primitive.name for equation in traced.eqns].count("cond") == 1


def test_the_rate_falls_along_half_a_cosine():
    rates = [float(cosine_decay(0.4, jnp.int32(step), 100.0)) for step in (0, 25, 50, 100, 500)]
    # 1/2 (1 + cos(pi / 4)) = 0.8536.
    np.testing.assert_allclose(rates, [0.4, 0.4 * 0.853553, 0.2, 0.0, 0.0], atol=1e-6)


def test_rates_have_single_precision_whatever_the_default():
    rate, step = jnp.float32(0.4), jnp.int32(3)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        assert cosine_decay(rate, step, 100.0).dtype == jnp.float32
        assert linear_decay(rate, 0.1, step, 2.0, 4.0).dtype == jnp.float32


def test_the_rate_falls_along_a_line_and_stays():
    rates = [float(linear_decay(0.5, 0.1, jnp.int32(step), 100.0, 200.0)) for step in (0, 100, 125, 150, 200, 500)]
    np.testing.assert_allclose(rates, [0.5, 0.5, 0.4, 0.3, 0.1, 0.1], rtol=1e-6)
