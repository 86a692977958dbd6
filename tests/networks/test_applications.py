"""The gradient of a network that a loss applies several times, and the forms of networks for accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.functional import shortcut
from sorl.networks import CriticEnsemble, ShortcutField, applications
from sorl.system.accelerators import bound_by_kernels, on_accelerator, traced_for

from ..random_networks import make


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
    for alone in (False, True):
        with traced_for("cuda", alone=alone):
            assert bound_by_kernels() == alone
        with traced_for("cpu", alone=alone):
            assert not bound_by_kernels()


@pytest.mark.parametrize("alone", [False, True])
def test_the_gradient_by_applications_is_that_of_the_loss(x64, alone):
    field = make(ShortcutField, 3, 2, (4, 4, 5), dtype=jnp.float64)
    random = np.random.default_rng(1)
    observation, noise = jnp.asarray(random.normal(size=(6, 3))), jnp.asarray(random.normal(size=(6, 2)))

    def loss(field, scale):
        # Applications to different numbers of rows, one of which depends on another.
        jumps = shortcut.sample(field, observation, noise, 2, clip=False)
        alone = field(observation[:4], noise[:4], jnp.ones(4), jnp.zeros(4))
        return scale * jnp.sum(jumps**3) + jnp.sum(alone**2), {"jumps": jumps}

    @jax.jit
    def gradient(field):
        with traced_for("cuda", alone=alone):
            slopes, metrics = applications.grad(loss)(field, 0.5)
            return applications.as_network(field, slopes), metrics

    # Alone, the layers with four inputs share a product, though one has four outputs and one five.
    _close(gradient(field), jax.jit(jax.grad(loss, has_aux=True))(field, 0.5))


def test_a_first_application_can_be_made_before(x64):
    field = make(ShortcutField, 3, 2, (4, 4, 5), dtype=jnp.float64)
    random = np.random.default_rng(1)
    observation, action = jnp.asarray(random.normal(size=(6, 3))), jnp.asarray(random.normal(size=(6, 2)))

    def loss(field):
        velocity = field(observation[:4], action[:4], jnp.zeros(4), jnp.ones(4))
        other = field(observation[:4], velocity, jnp.ones(4), jnp.ones(4))
        return jnp.sum(velocity**3) + jnp.sum(other**2), velocity

    @jax.jit
    def gradient(field):
        # Of more rows than the loss applies the field to first.
        first = applications.applied(field, observation, action, jnp.zeros(6), jnp.ones(6))
        return applications.grad(loss, first=first)(field)

    slopes, velocity = gradient(field)
    _close((applications.as_network(field, slopes), velocity), jax.jit(jax.grad(loss, has_aux=True))(field))
    # The first one is not computed: it does not change with the network.
    other = jax.tree.map(jnp.zeros_like, field)
    first = applications.applied(field, observation, action, jnp.zeros(6), jnp.ones(6))
    np.testing.assert_array_equal(applications.grad(loss, first=first)(other)[1], velocity)


@pytest.mark.parametrize("sizes", [(4, 4), (4, 3)])
@pytest.mark.parametrize("batch", [(), (5,)])
def test_a_critic_on_an_accelerator_equals_that_on_cpu(x64, sizes, batch):
    critic = make(CriticEnsemble, 3, 2, sizes, dtype=jnp.float64, heads=2)
    random = np.random.default_rng(1)
    observation, action, tangent = (jnp.asarray(random.normal(size=(*batch, size))) for size in (3, 2, 2))

    def values(platform: str):
        def value(critic, action):
            with traced_for(platform):
                return jnp.sum(critic(observation, action, jnp.float64(2)) ** 2)

        @jax.jit
        def both(critic, action):
            along = jax.jvp(lambda a: value(critic, a), (action,), (tangent,))
            return jax.value_and_grad(value, argnums=(0, 1))(critic, action), along

        return both(critic, action)

    _close(values("cuda"), values("cpu"))
