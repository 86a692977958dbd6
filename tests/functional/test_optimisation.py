"""The optimiser against optax, and its form for accelerators against that for CPUs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sorl.functional import optimisation
from sorl.system.accelerators import traced_for


def _arrays(seed: int, *, scale: float = 1.0) -> dict[str, jax.Array]:
    """A vector, and a matrix large enough that the norm of many seeds sums it in two steps."""
    random = np.random.default_rng(seed)
    return {name: jnp.asarray(scale * random.normal(size=size)) for name, size in (("a", 3), ("b", (3, 6000)))}


@functools.partial(jax.jit, static_argnames=("platform", "alone"))
def _step(gradient: Any, state: Any, networks: Any, *, platform: str = "cpu", alone: bool = False) -> Any:
    with traced_for(platform, alone=alone):
        return optimisation.step(gradient, state, networks, learning_rate=0.1, max_grad_norm=50.0)


@pytest.fixture(scope="module")
def by_optax():
    """Arrays after two steps of optax, the second of them clipped, and the norms."""
    with jax.enable_x64(True):
        optimiser = optax.chain(optax.clip_by_global_norm(50.0), optax.adam(0.1))
        networks = _arrays(0)
        state, norms = optimiser.init(networks), []
        for seed, scale in ((1, 0.1), (2, 1.0)):
            gradient = _arrays(seed, scale=scale)
            norms.append(optax.tree.norm(gradient))
            updates, state = optimiser.update(gradient, state)
            networks = optax.apply_updates(networks, updates)
        return networks, norms


@pytest.mark.parametrize("platform, alone", [("cpu", False), ("cuda", False), ("cuda", True)])
def test_steps_are_those_of_optax(x64, by_optax, platform, alone):
    expected, norms = by_optax
    assert norms[0] < 50 < norms[1]
    networks = _arrays(0)
    state = optimisation.init(networks)
    for (seed, scale), norm in zip(((1, 0.1), (2, 1.0)), norms, strict=True):
        networks, state, length = _step(_arrays(seed, scale=scale), state, networks, platform=platform, alone=alone)
        assert length == pytest.approx(float(norm), rel=1e-12)
    for name, array in expected.items():
        np.testing.assert_allclose(networks[name], array, rtol=1e-9, atol=1e-12)


def test_many_seeds_at_once_on_an_accelerator_take_each_ones_own_step(x64):
    networks, gradients = [_arrays(0), _arrays(1)], [_arrays(2), _arrays(3, scale=0.1)]
    states = [optimisation.init(each) for each in networks]
    stacked = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *each) for each in (gradients, states, networks))
    found = jax.vmap(functools.partial(_step, platform="cuda"))(*stacked)
    for index, each in enumerate(zip(gradients, states, networks, strict=True)):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], found)
        for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(_step(*each)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_moving_average_by_hand():
    found = optimisation.moving_average({"a": jnp.asarray([4.0])}, {"a": jnp.asarray([8.0])}, 0.25)
    np.testing.assert_array_equal(found["a"], [7.0])
