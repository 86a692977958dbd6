"""Small networks, batches and draws from numpy's generator: nothing to compile, and no initialiser is relied on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sorl.data.transitions import Transition
from sorl.networks import CriticEnsemble, ShortcutField


OBSERVATION_SIZE, ACTION_SIZE = 3, 2


def array(values: Any, dtype: Any) -> jax.Array:
    """The values as an array of JAX; of values in another precision `jnp.asarray` compiles a program for each shape."""
    return jax.device_put(np.asarray(values, dtype))


def fill(template: Any, seed: int, dtype: Any = jnp.float32, scale: float = 0.5) -> Any:
    """The template with every array drawn from N(0, scale^2)."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: array(scale * random.standard_normal(leaf.shape), dtype), template)


def double(tree: Any) -> Any:
    """The tree with its floating arrays in double precision: agents draw in single precision."""
    return jax.tree.map(lambda x: array(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def make_policy(agent: Any, observation_size: int, action_size: int, seed: int, scale: float = 0.5) -> Any:
    """An agent's policy with random arrays."""
    template = eqx.filter_eval_shape(
        lambda key: agent.policy(agent.init(observation_size, action_size, key=key)), jax.random.key(0)
    )
    return fill(template, seed, scale=scale)


def make(network: Any, *sizes: Any, seed: int = 0, dtype: Any = jnp.float32, **options: Any) -> Any:
    """`network(*sizes, **options)` with random arrays."""
    return fill(eqx.filter_eval_shape(network, *sizes, **options, key=jax.random.key(0)), seed, dtype)


def make_field(seed: int = 0, dtype: Any = jnp.float32, hidden_sizes: tuple[int, ...] = (5,)) -> ShortcutField:
    """A policy for `OBSERVATION_SIZE` and `ACTION_SIZE`."""
    return make(ShortcutField, OBSERVATION_SIZE, ACTION_SIZE, hidden_sizes, seed=seed, dtype=dtype)


def make_critic(seed: int = 1, dtype: Any = jnp.float32, hidden_sizes: tuple[int, ...] = (5,)) -> CriticEnsemble:
    """Two critics for `OBSERVATION_SIZE` and `ACTION_SIZE`."""
    return make(CriticEnsemble, OBSERVATION_SIZE, ACTION_SIZE, hidden_sizes, seed=seed, dtype=dtype)


def make_batch(batch_size: int, seed: int = 2, dtype: Any = jnp.float32, discount: float = 0.9) -> Transition:
    """Transitions of one step, with rewards of -1 and 0, about a quarter of them terminal."""
    random = np.random.default_rng(seed)
    return Transition(
        observation=array(random.standard_normal((batch_size, OBSERVATION_SIZE)), dtype),
        action=array(random.uniform(-1, 1, (batch_size, ACTION_SIZE)), dtype),
        reward=array(-random.integers(0, 2, batch_size), dtype),
        discount=array(discount * (random.integers(0, 4, batch_size) > 0), dtype),
        next_observation=array(random.standard_normal((batch_size, OBSERVATION_SIZE)), dtype),
        next_action=array(random.uniform(-1, 1, (batch_size, ACTION_SIZE)), dtype),
    )


def directional_derivatives(function: Any, point: Any, gradient: Any, seed: int = 3) -> tuple[float, float]:
    """Along one random direction: `gradient`'s derivative, and the central finite difference of `function`."""
    random = np.random.default_rng(seed)
    direction = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape), point)
    along = sum(np.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
    step = 1e-6
    plus, minus = (jax.tree.map(lambda x, d, s=s: np.asarray(x) + s * step * d, point, direction) for s in (1, -1))
    return float(along), float(function(plus) - function(minus)) / (2 * step)
