"""FQL: its losses against rows worked out one by one, who gets which gradient, and its cost."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Fql, Transition

from ..baseline_states import adam_step, assert_close, average, euler, flow_errors, make_example, q_loss, values_of
from ..random_networks import ACTION_SIZE


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "critic_hidden_sizes": (5,),
    "flow_steps": 3,
    "learning_rate": 0.01,
    "discount": 0.9,
    "target_rate": 0.1,
    "distillation_coefficient": 7.0,
}
update = jax.jit(Fql.update)
losses_of = jax.jit(Fql.losses)


@pytest.fixture
def example():
    return make_example(Fql(**SETTINGS), rows=6)


@jax.jit
def _critic_loss(critic, state, batch, draws):
    rows = zip(batch.next_observation, draws.target_noise, strict=True)
    next_action = jnp.clip(jnp.stack([state.one_step(x, z) for x, z in rows]), -1, 1)
    next_q = jnp.mean(values_of(state.target_critic, batch.next_observation, next_action), axis=1)
    return q_loss(critic, batch, next_q)


@jax.jit
def _parts_of_policy_loss(agent, field, one_step, critic, batch, draws):
    taught = euler(field, batch.observation, draws.policy_noise, agent.flow_steps)
    action = jnp.stack([one_step(x, z) for x, z in zip(batch.observation, draws.policy_noise, strict=True)])
    return {
        "flow_matching_loss": jnp.mean(flow_errors(field, batch, draws.flow.noise, draws.flow.time)),
        "distillation_loss": jnp.mean((action - taught) ** 2),
        "q_loss": -jnp.mean(values_of(critic, batch.observation, jnp.clip(action, -1, 1))),
    }


def test_losses_are_those_worked_out_row_by_row(example):
    agent, state, batch, draws = example
    losses = losses_of(agent, state, batch, draws, ())
    expected = _parts_of_policy_loss(agent, state.field, state.one_step, state.critic, batch, draws)
    for name, value in expected.items():
        assert losses[name] == pytest.approx(float(value), rel=1e-9), name
    total = expected["flow_matching_loss"] + 7 * expected["distillation_loss"] + expected["q_loss"]
    assert losses["policy_loss"] == pytest.approx(float(total), rel=1e-9)
    assert losses["policy_q_mean"] == pytest.approx(-float(expected["q_loss"]), rel=1e-9)
    critic_loss = _critic_loss(state.critic, state, batch, draws)
    assert losses["critic_loss"] == pytest.approx(float(critic_loss), rel=1e-9)


def test_an_update_is_a_critic_step_a_policy_step_and_an_average(example):
    agent, state, batch, draws = example
    new, metrics = update(agent, state, batch, draws, ())
    critic = adam_step(jax.grad(_critic_loss)(state.critic, state, batch, draws), state.critic, 0.01)
    assert_close(new.critic, critic)
    assert_close(new.target_critic, average(critic, state.target_critic, 0.1))

    # Each network has its own losses: flow matching the field, distillation and Q, of the new critic, the one step.
    def field_loss(field):
        return _parts_of_policy_loss(agent, field, state.one_step, critic, batch, draws)["flow_matching_loss"]

    def one_step_loss(one_step):
        parts = _parts_of_policy_loss(agent, state.field, one_step, critic, batch, draws)
        return 7 * parts["distillation_loss"] + parts["q_loss"]

    assert_close(new.field, adam_step(jax.grad(field_loss)(state.field), state.field, 0.01))
    assert_close(new.one_step, adam_step(jax.grad(one_step_loss)(state.one_step), state.one_step, 0.01))
    assert metrics.keys() - losses_of(agent, state, batch, draws, ()).keys() == {"critic_grad_norm", "policy_grad_norm"}


def test_distillation_reaches_the_one_step_policy_alone(example):
    agent, state, batch, draws = example
    without, _ = update(dataclasses.replace(agent, distillation_coefficient=0.0), state, batch, draws, ())
    strong, _ = update(dataclasses.replace(agent, distillation_coefficient=1e6), state, batch, draws, ())
    for network in ("field", "critic", "target_critic"):
        for a, b in zip(
            jax.tree.leaves(getattr(without, network)), jax.tree.leaves(getattr(strong, network)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    changed = zip(jax.tree.leaves(without.one_step), jax.tree.leaves(strong.one_step), strict=True)
    assert all(np.any(a != b) for a, b in changed)


def test_the_q_loss_can_be_normalised(example):
    agent, state, batch, draws = example
    plain = losses_of(agent, state, batch, draws, ())
    normalised = losses_of(dataclasses.replace(agent, normalise_q=True), state, batch, draws, ())
    action = [state.one_step(x, z) for x, z in zip(batch.observation, draws.policy_noise, strict=True)]
    q = jnp.mean(values_of(state.critic, batch.observation, jnp.clip(jnp.stack(action), -1, 1)), axis=1)
    assert normalised["q_loss"] == pytest.approx(float(plain["q_loss"] / jnp.mean(jnp.abs(q))), rel=1e-9)


def test_acting_takes_the_candidate_with_the_highest_value(example):
    agent, state, batch, _ = example
    policy, observation = agent.policy(state), batch.observation[0]
    noise = 3 * jax.random.normal(jax.random.key(1), (5, ACTION_SIZE))
    candidates = jnp.stack([jnp.clip(state.one_step(observation, z), -1, 1) for z in noise])
    assert np.any(np.abs(candidates) == 1)  # some are clipped
    q = jnp.mean(values_of(state.critic, [observation] * 5, candidates), axis=1)
    chosen = agent.actor.act(policy, observation, noise, Budget(1, 5))
    np.testing.assert_allclose(chosen, candidates[jnp.argmax(q)], rtol=1e-12)
    np.testing.assert_allclose(agent.actor.act(policy, observation, noise[:1], Budget(1)), candidates[0], rtol=1e-12)
    quiet = agent.actor.act(policy, observation, noise[:1], Budget(1, noise_scale=0.0))
    np.testing.assert_allclose(quiet, jnp.clip(state.one_step(observation, 0 * noise[0]), -1, 1), rtol=1e-12)


@pytest.mark.slow
def test_an_update_at_full_size_costs_no_more_than_the_authors_own():
    """4 x 512, batch 256, cube-single: their update has 12.6 GFLOP by the same count."""
    with jax.enable_x64(False):
        agent, key = Fql(), jax.random.key(0)
        batch = jax.eval_shape(lambda: _zero_batch(256, observation_size=28, action_size=5))
        state = jax.eval_shape(lambda: agent.init(28, 5, key=key))
        draws = jax.eval_shape(lambda: agent.draw(256, 5, key=key))
        compiled = jax.jit(Fql.update).lower(agent, state, batch, draws, ()).compile()
        cost: Any = compiled.cost_analysis()
        assert cost["flops"] <= 12.6e9


def _zero_batch(rows: int, observation_size: int, action_size: int) -> Transition:
    observation, action = jnp.zeros((rows, observation_size)), jnp.zeros((rows, action_size))
    return Transition(observation, action, jnp.zeros(rows), jnp.zeros(rows), observation, action)
