"""IFQL and the implicit values that it shares: losses, their order, and best of N."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Ifql, Transition
from sorl.agents.shared import implicit_values as implicit

from ..baseline_states import adam_step, assert_close, average, euler, flow_errors, make_example, q_loss, values_of
from ..random_networks import ACTION_SIZE, double


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "critic_hidden_sizes": (5,),
    "flow_steps": 3,
    "candidates": 4,
    "learning_rate": 0.01,
    "discount": 0.9,
    "target_rate": 0.1,
    "expectile": 0.8,
}
update = jax.jit(Ifql.update)
losses_of = jax.jit(Ifql.losses)


@pytest.fixture
def example():
    return make_example(Ifql(**SETTINGS), rows=6)


@jax.jit
def _value_loss(value, target_critic, batch):
    q = jnp.min(values_of(target_critic, batch.observation, batch.action), axis=1)
    difference = q - jnp.stack([value(x) for x in batch.observation])
    return jnp.mean(jnp.where(difference < 0, 0.2, 0.8) * difference**2)


@jax.jit
def _critic_loss(critic, value, batch):
    next_v = jnp.stack([value(x) for x in batch.next_observation])
    return q_loss(critic, batch, next_v)


@jax.jit
def _flow_loss(field, batch, draws):
    return jnp.mean(flow_errors(field, batch, draws.noise, draws.time))


def test_losses_are_those_worked_out_row_by_row(example):
    agent, state, batch, draws = example
    losses = losses_of(agent, state, batch, draws, ())
    values = state.values
    assert losses["value_loss"] == pytest.approx(float(_value_loss(values.value, values.target_critic, batch)))
    assert losses["critic_loss"] == pytest.approx(float(_critic_loss(values.critic, values.value, batch)))
    assert losses["flow_matching_loss"] == pytest.approx(float(_flow_loss(state.field, batch, draws)))


def test_an_update_steps_the_value_then_the_critic_and_the_flow_beside_them(example):
    agent, state, batch, draws = example
    new, _ = update(agent, state, batch, draws, ())
    old = state.values
    value = adam_step(jax.jit(jax.grad(_value_loss))(old.value, old.target_critic, batch), old.value, 0.01)
    assert_close(new.values.value, value)
    critic = adam_step(jax.jit(jax.grad(_critic_loss))(old.critic, value, batch), old.critic, 0.01)
    assert_close(new.values.critic, critic)
    assert_close(new.values.target_critic, average(critic, old.target_critic, 0.1))
    gradient = jax.jit(jax.grad(_flow_loss))(state.field, batch, draws)
    assert_close(new.field, adam_step(gradient, state.field, 0.01))


def test_it_acts_with_the_best_of_its_candidates_by_the_lower_head(example):
    agent, state, batch, _ = example
    usual = agent.actor.budgets.usual
    assert (usual.inference_steps, usual.candidates) == (3, 4)
    observation = batch.observation[0]
    noise = double(agent.actor.draw_action(ACTION_SIZE, usual, key=jax.random.key(2)))
    candidates = np.asarray(euler(state.field, [observation] * 4, noise, 3))
    q = np.min(values_of(state.values.critic, [observation] * 4, candidates), axis=1)
    act = jax.jit(agent.actor.act, static_argnums=3)
    chosen = act(agent.policy(state), observation, noise, usual)
    np.testing.assert_allclose(chosen, candidates[np.argmax(q)], rtol=1e-12)
    alone = act(agent.policy(state), observation, noise[:1], Budget(3))
    np.testing.assert_allclose(alone, candidates[0], rtol=1e-12)


def test_the_value_of_a_known_state_becomes_the_expectile_of_its_rewards():
    """Terminal transitions of one state and two actions: Q learns the rewards, V their expectile."""
    agent = Ifql(hidden_sizes=(4,), critic_hidden_sizes=(32,), learning_rate=0.01, target_rate=0.2, expectile=0.8)
    sides = np.repeat([-0.5, 0.5], 4)
    batch = Transition(
        observation=jnp.asarray(np.zeros((8, 3))),
        action=jnp.asarray(np.stack([sides, sides], axis=1)),
        reward=jnp.asarray(np.where(sides > 0, 1.0, 0.0)),
        discount=jnp.asarray(np.zeros(8)),
        next_observation=jnp.asarray(np.zeros((8, 3))),
        next_action=jnp.asarray(np.zeros((8, 2))),
    )

    @jax.jit
    def train(values):
        def one(_, values):
            q = implicit.target_q(values, batch, "min")
            rates: Any = {"learning_rate": agent.learning_rate, "target_rate": agent.target_rate}
            return implicit.step(values, batch, q, expectile=agent.expectile, **rates)[0]

        values = jax.lax.fori_loop(0, 500, one, values)
        return jax.vmap(values.critic)(batch.observation, batch.action), values.value(jnp.zeros(3))

    init = jax.jit(lambda key: implicit.init(3, 2, (32,), 2, key=key))
    q, value = train(double(init(jax.random.key(0))))
    np.testing.assert_allclose(q, np.stack([batch.reward] * 2, axis=1), atol=0.01)
    assert value == pytest.approx(0.8, abs=0.02)
