"""FAWAC: its losses against rows worked out one by one, their order, and its weights."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Fawac

from ..baseline_states import adam_step, assert_close, average, euler, flow_errors, make_example, q_loss, values_of


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "critic_hidden_sizes": (5,),
    "flow_steps": 3,
    "learning_rate": 0.01,
    "discount": 0.9,
    "target_rate": 0.1,
    "temperature": 2.0,
}
update = jax.jit(Fawac.update)
losses_of = jax.jit(Fawac.losses)


@pytest.fixture
def example():
    return make_example(Fawac(**SETTINGS), rows=6)


@jax.jit
def _critic_loss(critic, agent, state, batch, draws):
    next_action = euler(state.field, batch.next_observation, draws.target_noise, agent.flow_steps)
    next_q = jnp.mean(values_of(state.target_critic, batch.next_observation, next_action), axis=1)
    return q_loss(critic, batch, next_q)


@jax.jit
def _advantage(value, state, batch):
    q = jnp.mean(values_of(state.target_critic, batch.observation, batch.action), axis=1)
    return q - jnp.stack([value(x) for x in batch.observation])


@jax.jit
def _policy_loss(field, weight, batch, draws):
    return jnp.mean(weight * flow_errors(field, batch, draws.flow.noise, draws.flow.time))


def test_losses_are_those_worked_out_row_by_row(example):
    agent, state, batch, draws = example
    losses = losses_of(agent, state, batch, draws, ())
    advantage = _advantage(state.value, state, batch)
    weight = np.minimum(np.exp(2 * np.asarray(advantage)), 100)
    assert losses["critic_loss"] == pytest.approx(float(_critic_loss(state.critic, agent, state, batch, draws)))
    assert losses["value_loss"] == pytest.approx(float(jnp.mean(advantage**2) / 2))
    assert losses["advantage_weight_mean"] == pytest.approx(weight.mean())
    assert losses["policy_loss"] == pytest.approx(float(_policy_loss(state.field, weight, batch, draws)))


def test_an_update_steps_critic_value_and_flow_in_this_order(example):
    agent, state, batch, draws = example
    new, metrics = update(agent, state, batch, draws, ())
    gradient = jax.grad(_critic_loss)(state.critic, agent, state, batch, draws)
    critic = adam_step(gradient, state.critic, 0.01)
    assert_close(new.critic, critic)
    assert_close(new.target_critic, average(critic, state.target_critic, 0.1))

    def value_loss(value):
        return jnp.mean(_advantage(value, state, batch) ** 2) / 2

    value = adam_step(jax.grad(value_loss)(state.value), state.value, 0.01)
    assert_close(new.value, value)
    # The weights are those of the value that the step above made.
    weight = jnp.minimum(jnp.exp(2 * _advantage(value, state, batch)), 100.0)
    assert metrics["advantage_weight_mean"] == pytest.approx(float(weight.mean()))
    assert_close(new.field, adam_step(jax.grad(_policy_loss)(state.field, weight, batch, draws), state.field, 0.01))


def test_at_temperature_zero_it_clones_whatever_the_rewards(example):
    agent, state, batch, draws = example
    agent = dataclasses.replace(agent, temperature=0.0)
    losses = losses_of(agent, state, batch, draws, ())
    assert losses["policy_loss"] == losses["flow_matching_loss"]
    assert losses["advantage_weight_mean"] == 1.0
    new, _ = update(agent, state, batch, draws, ())
    other, _ = update(agent, state, dataclasses.replace(batch, reward=-5 * batch.reward), draws, ())
    for a, b in zip(jax.tree.leaves(new.field), jax.tree.leaves(other.field), strict=True):
        np.testing.assert_array_equal(a, b)
