"""States of agents with random arrays, and an update computed step by step, for tests of the baselines."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .random_networks import ACTION_SIZE, OBSERVATION_SIZE, array, double, fill, make_batch


def random_state(agent: Any, seed: int = 0, dtype: Any = jnp.float64) -> Any:
    """A state whose networks and averages are all different, with optimisers that made no step yet."""
    template = jax.eval_shape(lambda key: agent.init(OBSERVATION_SIZE, ACTION_SIZE, key=key), jax.random.key(0))

    def settle(path, leaf, random):
        of_optimiser = any("optimiser" in str(entry) for entry in path)
        kind = dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype
        return array(np.zeros(leaf.shape), kind) if of_optimiser else random

    return jax.tree_util.tree_map_with_path(settle, template, fill(template, seed, dtype))


def make_example(agent: Any, rows: int) -> tuple[Any, Any, Any, Any]:
    """The agent, a state, a batch of `rows` and draws for it, all in double precision."""
    draws = double(jax.jit(lambda key: agent.draw(rows, ACTION_SIZE, key=key))(jax.random.key(0)))
    return agent, random_state(agent), make_batch(rows, dtype=jnp.float64), draws


def q_loss(critic: Any, batch: Any, next_q: Any) -> jax.Array:
    """Row by row: the mean square of the heads' distance to the TD target."""
    target = batch.reward + batch.discount * next_q
    return jnp.mean((values_of(critic, batch.observation, batch.action) - target[:, None]) ** 2)


@partial(jax.jit, static_argnames="learning_rate")
def adam_step(gradient: Any, networks: Any, learning_rate: float) -> Any:
    """The networks after Adam's first step."""
    optimiser = optax.adam(learning_rate)
    updates, _ = optimiser.update(gradient, optimiser.init(networks))
    return jax.tree.map(jnp.add, networks, updates)


@partial(jax.jit, static_argnames="rate")
def average(new: Any, old: Any, rate: float) -> Any:
    """`rate * new + (1 - rate) * old`."""
    return jax.tree.map(lambda n, o: rate * n + (1 - rate) * o, new, old)


def assert_close(actual: Any, expected: Any, rtol: float = 1e-9) -> None:
    """Asserts that the arrays of two pytrees are close, relative to each array's largest entry."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=rtol * max(float(np.abs(e).max()), 1e-3))


@partial(jax.jit, static_argnames="steps")
def euler(field: Any, observation: Any, noise: Any, steps: int) -> jax.Array:
    """Row by row: `steps` Euler steps, then a clip."""
    rows = []
    for x, action in zip(observation, noise, strict=True):
        for index in range(steps):
            action = action + field(x, action, jnp.asarray(index / steps)) / steps
        rows.append(jnp.clip(action, -1, 1))
    return jnp.stack(rows)


@jax.jit
def values_of(critic: Any, observation: Any, action: Any) -> jax.Array:
    """Row by row: one value for each head."""
    return jnp.stack([critic(x, a) for x, a in zip(observation, action, strict=True)])


@jax.jit
def flow_errors(field: Any, batch: Any, noise: Any, time: Any) -> jax.Array:
    """Row by row: the mean square of velocity minus action minus noise, on the straight path."""
    errors = []
    for x, action, start, t in zip(batch.observation, batch.action, noise, time, strict=True):
        errors.append(jnp.mean((field(x, (1 - t) * start + t * action, t) - (action - start)) ** 2))
    return jnp.stack(errors)
