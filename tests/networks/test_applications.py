"""The gradient of a network that a loss applies several times, and the forms of networks for accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import shortcut
from sorl.networks import CriticEnsemble, ShortcutField, applications
from sorl.system.accelerators import on_accelerator, traced_for


def _double(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


def _close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_only_programs_for_accelerators_get_their_forms():
    with traced_for("cuda"):
        assert on_accelerator()
        with traced_for("cpu"):
            assert not on_accelerator()
    assert not on_accelerator()


def test_the_gradient_by_applications_is_that_of_the_loss(x64):
    field = _double(ShortcutField(3, 2, (4, 4, 5), key=jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), 3)
    observation, noise = jax.random.normal(keys[0], (6, 3)), jax.random.normal(keys[1], (6, 2))

    def loss(field, scale):
        # Applications to different numbers of rows, one of which depends on another.
        jumps = shortcut.sample(field, observation, noise, 2, clip=False)
        alone = field(observation[:4], noise[:4], jnp.ones(4), jnp.zeros(4))
        return scale * jnp.sum(jumps**3) + jnp.sum(alone**2), {"jumps": jumps}

    expected = jax.grad(loss, has_aux=True)(field, 0.5)
    slopes, metrics = jax.jit(applications.grad(loss))(field, 0.5)
    _close((applications.as_network(field, slopes), metrics), expected)


@pytest.mark.parametrize("sizes", [(4, 4), (4, 3)])
@pytest.mark.parametrize("batch", [(), (5,)])
def test_a_critic_on_an_accelerator_equals_that_on_cpu(x64, sizes, batch):
    critic = _double(CriticEnsemble(3, 2, sizes, heads=2, key=jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), 3)
    observation, action = jax.random.normal(keys[0], (*batch, 3)), jax.random.normal(keys[1], (*batch, 2))
    tangent = jax.random.normal(keys[2], action.shape)

    def values(platform: str):
        def value(critic, action):
            with traced_for(platform):
                return jnp.sum(critic(observation, action, jnp.float64(2)) ** 2)

        of_value = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(critic, action)
        return of_value, jax.jit(lambda a: jax.jvp(lambda a: value(critic, a), (a,), (tangent,)))(action)

    _close(values("cuda"), values("cpu"))
