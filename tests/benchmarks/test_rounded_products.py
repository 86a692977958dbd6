"""Products with factors of fewer digits: what is rounded, and that nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sorl
from sorl.data.transitions import Transition

from .. import own_agent


@pytest.fixture
def rounded_products():
    with own_agent.forgotten_afterwards():
        import rounded_products

        yield rounded_products


# bfloat16 does not have 1 + 2^-8; TF32 has 1 + 2^-10, and not 1 + 2^-11, whose even neighbour is 1.
@pytest.mark.parametrize(
    "bits, factor, kept", [(7, 1 + 2**-8, 1.0), (10, 1 + 2**-10, 1 + 2**-10), (10, 1 + 2**-11, 1.0)]
)
def test_both_factors_are_rounded_and_the_sum_is_not(rounded_products, bits, factor, kept):
    def function(x, y):
        return x @ y + factor

    x, y = jnp.float32([factor, 2.0**-12]), jnp.float32([factor, 1.0])
    found = rounded_products.with_rounded_products(function, bits)(x, y)
    assert float(found) == kept * kept + 2.0**-12 + factor


def test_bfloat16_is_that_of_jax_in_products_of_gradients_branches_and_called_functions(rounded_products):
    first, second, x = (jax.random.normal(jax.random.key(seed), (8, 8)) for seed in range(3))

    @jax.jit
    def loss(w, index):
        branches = [lambda w: jax.nn.gelu(x @ w), lambda w: jnp.tanh(w @ x)]
        return jnp.sum(jax.lax.switch(index, branches, w) @ second)

    def by_hand(w):  # the gradient for the second branch
        low = [array.astype(jnp.bfloat16).astype(jnp.float32) for array in (w, x, second)]
        tanh = jnp.tanh(jnp.dot(low[0], low[1], precision="float32"))
        behind = jnp.dot(jnp.ones((8, 8)), low[2].T, precision="float32") * (1 - tanh**2)
        behind = behind.astype(jnp.bfloat16).astype(jnp.float32)
        return jnp.dot(behind, low[1].T, precision="float32")

    gradient = jax.jit(rounded_products.with_rounded_products(jax.grad(loss), 7))
    np.testing.assert_allclose(gradient(first, jnp.int32(1)), by_hand(first), rtol=1e-5, atol=1e-5)


def test_an_update_without_rounding_has_the_bits_of_the_agent_and_the_agents_round(rounded_products):
    small = {"hidden_sizes": (16,), "critic_hidden_sizes": (16,), "discretization_steps": 2, "backprop_steps": 2}
    plain = sorl.Sorl(**small)
    state, key = plain.init(3, 2, key=jax.random.key(0)), jax.random.key(1)
    rows = jax.random.normal(key, (8, 3)), jnp.tanh(jax.random.normal(key, (8, 2))), jnp.ones(8)
    batch = Transition(rows[0], rows[1], rows[2], rows[2], rows[0] + 1, rows[1])
    draws = plain.draw(8, 2, key=key), plain.draw_shared(jnp.int32(0), key=key)

    expected = jax.jit(plain.update)(state, batch, *draws)
    same = jax.jit(rounded_products.with_rounded_products(plain.update, 23))(state, batch, *draws)
    assert jax.tree.structure(same) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)

    losses = {"Sorl": float(expected[1]["flow_matching_loss"])}
    for kind in (rounded_products.SorlTf32, rounded_products.SorlBfloat16):
        agent = kind(**small)
        assert isinstance(agent, sorl.Sorl)
        losses[kind.__name__] = float(jax.jit(agent.update)(state, batch, *draws)[1]["flow_matching_loss"])
    assert 0 < abs(losses["SorlTf32"] / losses["Sorl"] - 1) < 1e-3
    assert 0 < abs(losses["SorlBfloat16"] / losses["Sorl"] - 1) < 1e-2


def test_what_it_cannot_evaluate_is_refused(rounded_products):
    def looped(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: x @ x, x)

    with pytest.raises(NotImplementedError, match="The function has a scan of functions; say here how it is evaluated"):
        rounded_products.with_rounded_products(looped, 7)(jnp.eye(2))
