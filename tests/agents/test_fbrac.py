"""FBRAC: its losses against rows worked out one by one, and the gradient through all flow steps."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Fbrac

from ..baseline_states import adam_step, assert_close, average, euler, flow_errors, make_example, q_loss, values_of
from ..random_networks import ACTION_SIZE, directional_derivatives


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "critic_hidden_sizes": (5,),
    "flow_steps": 4,
    "learning_rate": 0.01,
    "discount": 0.9,
    "target_rate": 0.1,
    "flow_matching_coefficient": 2.0,
}
update = jax.jit(Fbrac.update)
losses_of = jax.jit(Fbrac.losses)


@pytest.fixture
def example():
    return make_example(Fbrac(**SETTINGS), rows=6)


@jax.jit
def _critic_loss(critic, agent, state, batch, draws):
    next_action = euler(state.field, batch.next_observation, draws.target_noise, agent.flow_steps)
    next_q = jnp.mean(values_of(state.target_critic, batch.next_observation, next_action), axis=1)
    return q_loss(critic, batch, next_q)


@jax.jit
def _parts_of_policy_loss(agent, field, critic, batch, draws):
    action = euler(field, batch.observation, draws.policy_noise, agent.flow_steps)
    return {
        "flow_matching_loss": jnp.mean(flow_errors(field, batch, draws.flow.noise, draws.flow.time)),
        "q_loss": -jnp.mean(values_of(critic, batch.observation, action)),
    }


def test_losses_are_those_worked_out_row_by_row(example):
    agent, state, batch, draws = example
    losses = losses_of(agent, state, batch, draws, ())
    expected = _parts_of_policy_loss(agent, state.field, state.critic, batch, draws)
    for name, value in expected.items():
        assert losses[name] == pytest.approx(float(value), rel=1e-9), name
    total = 2 * expected["flow_matching_loss"] + expected["q_loss"]
    assert losses["policy_loss"] == pytest.approx(float(total), rel=1e-9)
    critic_loss = _critic_loss(state.critic, agent, state, batch, draws)
    assert losses["critic_loss"] == pytest.approx(float(critic_loss), rel=1e-9)


def test_an_update_is_a_critic_step_a_policy_step_and_an_average(example):
    agent, state, batch, draws = example
    new, _ = update(agent, state, batch, draws, ())
    critic_gradient = jax.jit(jax.grad(_critic_loss))(state.critic, agent, state, batch, draws)
    critic = adam_step(critic_gradient, state.critic, 0.01)
    assert_close(new.critic, critic)
    assert_close(new.target_critic, average(critic, state.target_critic, 0.1))

    def policy_loss(field):
        parts = _parts_of_policy_loss(agent, field, critic, batch, draws)
        return 2 * parts["flow_matching_loss"] + parts["q_loss"]

    assert_close(new.field, adam_step(jax.jit(jax.grad(policy_loss))(state.field), state.field, 0.01))


@pytest.mark.parametrize("normalise_q", [False, True])
def test_the_q_gradient_goes_through_every_flow_step(example, normalise_q):
    """Against finite differences: a gradient through the last step alone is another one."""
    agent, state, batch, draws = example
    agent = dataclasses.replace(agent, flow_matching_coefficient=0.0, normalise_q=normalise_q)
    # From small noise the actions stay inside [-1, 1], where the clip has a derivative.
    field = jax.tree.map(lambda leaf: 0.5 * np.asarray(leaf), state.field)
    draws = dataclasses.replace(draws, policy_noise=0.1 * draws.policy_noise)
    action = euler(field, batch.observation, draws.policy_noise, agent.flow_steps)
    assert np.all(np.abs(action) < 1)
    scale = 1.0
    if normalise_q:
        q = np.mean(values_of(state.critic, batch.observation, action), axis=1)
        scale = float(np.mean(np.abs(q)))  # a constant to the gradient

    @jax.jit
    def q_loss(field):
        losses = Fbrac(**SETTINGS).losses(dataclasses.replace(state, field=field), batch, draws, ())
        return losses["q_loss"] / scale

    gradient = jax.jit(jax.grad(lambda field: agent._policy_loss(field, state.critic, batch, draws)[0]))(field)
    along, difference = directional_derivatives(q_loss, field, gradient)
    assert along == pytest.approx(difference, rel=1e-6)

    def through_the_last_step(field):
        still = jax.lax.stop_gradient(field)

        def last(x, action):
            for index in range(agent.flow_steps):
                now = field if index == agent.flow_steps - 1 else still
                action = action + now(x, action, jnp.asarray(index / agent.flow_steps)) / agent.flow_steps
            return action

        actions = jax.vmap(last)(batch.observation, draws.policy_noise)
        return -jnp.mean(jax.vmap(state.critic)(batch.observation, actions)) / scale

    wrong, _ = directional_derivatives(q_loss, field, jax.jit(jax.grad(through_the_last_step))(field))
    assert wrong != pytest.approx(difference, rel=0.01)


def test_acting_takes_the_budgets_steps_and_its_best_candidate(example):
    agent, state, batch, _ = example
    policy, observation = agent.policy(state), batch.observation[0]
    noise = jnp.asarray(np.random.default_rng(1).standard_normal((5, ACTION_SIZE)))
    act = jax.jit(agent.actor.act, static_argnums=3)
    for steps in (2, 4):
        candidates = np.asarray(euler(state.field, [observation] * 5, noise, steps))
        q = np.mean(values_of(state.critic, [observation] * 5, candidates), axis=1)
        chosen = act(policy, observation, noise, Budget(steps, 5))
        np.testing.assert_allclose(chosen, candidates[np.argmax(q)], rtol=1e-12)
