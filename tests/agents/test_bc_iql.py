"""The two agents whose policy is a Gaussian: BC and IQL."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Bc, Budget, Iql, Transition

from ..baseline_states import adam_step, assert_close, average, random_state, values_of
from ..random_networks import ACTION_SIZE, double, make_batch


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "critic_hidden_sizes": (5,),
    "learning_rate": 0.01,
    "discount": 0.9,
    "target_rate": 0.1,
    "expectile": 0.8,
    "temperature": 2.0,
}
BATCH = 6
update = jax.jit(Iql.update)


@jax.jit
def _cloning_losses(actor, batch):
    """Row by row: half the squared distance to the mean, and the normal density's constant."""
    rows = [jnp.sum((a - actor.mean(x)) ** 2) / 2 for x, a in zip(batch.observation, batch.action, strict=True)]
    return jnp.stack(rows) + ACTION_SIZE / 2 * np.log(2 * np.pi)


def test_bc_takes_the_step_of_half_the_squared_distance():
    agent, batch = Bc(hidden_sizes=(5,), learning_rate=0.01), make_batch(BATCH, dtype=jnp.float64)
    state = random_state(agent)

    @jax.jit
    @jax.value_and_grad
    def loss(actor):
        return jnp.mean(_cloning_losses(actor, batch))

    expected, gradient = loss(state.actor)
    new, metrics = jax.jit(Bc.update)(agent, state, batch, (), ())
    assert_close(new.actor, adam_step(gradient, state.actor, 0.01))
    assert metrics["policy_loss"] == pytest.approx(float(expected))
    assert set(metrics) == {"policy_loss", "policy_grad_norm"}
    losses = jax.jit(Bc.losses)(agent, state, batch, (), ())
    assert losses["policy_loss"] == pytest.approx(float(expected))


@pytest.mark.parametrize("agent", [Bc(hidden_sizes=(5,)), Iql(**SETTINGS)])
def test_they_act_on_the_mean_unless_told_otherwise(agent):
    policy = agent.policy(random_state(agent))
    observation = jnp.array([0.5, -0.2, 0.1])
    usual = agent.actor.budgets.usual
    assert (usual.inference_steps, usual.candidates, usual.noise_scale) == (1, 1, 0.0)
    noise = double(agent.actor.draw_action(ACTION_SIZE, usual, key=jax.random.key(0)))
    mean = policy.mlp(observation)
    np.testing.assert_array_equal(agent.actor.act(policy, observation, noise, usual), jnp.clip(mean, -1, 1))
    warm = agent.actor.act(policy, observation, jnp.array([0.1, -9.0]), Budget(1, noise_scale=0.5))
    np.testing.assert_allclose(warm, [np.clip(mean[0] + 0.05, -1, 1), -1.0], rtol=1e-12)


def test_bc_with_a_learned_deviation_finds_that_of_the_data():
    agent = Bc(hidden_sizes=(8,), learned_std=True, learning_rate=0.02)
    batch = jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape)), make_batch(200, dtype=jnp.float64))
    noise = np.random.default_rng(0).standard_normal((200, 2))
    action = np.array([0.2, -0.3]) + np.array([0.1, 0.3]) * noise
    batch = type(batch)(**{**vars(batch), "action": jnp.asarray(action)})

    @jax.jit
    def train(state):
        actor = jax.lax.fori_loop(0, 400, lambda _, s: agent.update(s, batch, (), ())[0], state).actor
        return jnp.exp(actor.log_std), actor.mean(jnp.zeros(3))

    init = jax.jit(lambda key: agent.init(3, 2, key=key))
    deviation, mean = train(double(init(jax.random.key(0))))
    np.testing.assert_allclose(deviation, action.std(axis=0), rtol=0.02)
    np.testing.assert_allclose(mean, action.mean(axis=0), atol=0.01)


@jax.jit
def _value_loss(value, q, batch):
    difference = q - jnp.stack([value(x) for x in batch.observation])
    return jnp.mean(jnp.where(difference < 0, 0.2, 0.8) * difference**2)


@jax.jit
def _policy_loss(actor, weight, batch):
    return jnp.mean(weight * _cloning_losses(actor, batch))


@jax.jit
def _weight(value, q, batch):
    return jnp.minimum(jnp.exp(2 * (q - jnp.stack([value(x) for x in batch.observation]))), 100.0)


def test_iql_weighs_by_the_new_value_and_the_target_critic_from_before():
    agent, batch = Iql(**SETTINGS), make_batch(BATCH, dtype=jnp.float64)
    state = random_state(agent)
    new, metrics = update(agent, state, batch, (), ())
    old = state.values
    q = np.min(values_of(old.target_critic, batch.observation, batch.action), axis=1)
    value = adam_step(jax.jit(jax.grad(_value_loss))(old.value, q, batch), old.value, 0.01)
    weight = _weight(value, q, batch)
    assert_close(new.values.value, value)
    gradient = jax.jit(jax.grad(_policy_loss))(state.actor, weight, batch)
    assert_close(new.actor, adam_step(gradient, state.actor, 0.01))
    assert_close(new.values.target_critic, average(new.values.critic, old.target_critic, 0.1))
    assert metrics["advantage_weight_mean"] == pytest.approx(float(weight.mean()))
    assert metrics["policy_loss"] == pytest.approx(float(_policy_loss(state.actor, weight, batch)))


def test_the_policy_of_iql_moves_no_value():
    agent, batch = Iql(**SETTINGS), make_batch(BATCH, dtype=jnp.float64)
    state, other = random_state(agent), Iql(**{**SETTINGS, "temperature": 0.0})
    new, _ = update(agent, state, batch, (), ())
    cloned, metrics = update(other, state, batch, (), ())
    for a, b in zip(jax.tree.leaves(new.values), jax.tree.leaves(cloned.values), strict=True):
        np.testing.assert_array_equal(a, b)
    # Without a temperature every weight is 1, and it clones.
    assert metrics["advantage_weight_mean"] == 1.0
    clone = Bc(hidden_sizes=(5,), learning_rate=0.01)
    bc, _ = jax.jit(Bc.update)(clone, type(random_state(clone))(state.actor, state.actor_optimiser), batch, (), ())
    assert_close(cloned.actor, bc.actor, rtol=1e-12)


def test_losses_are_those_of_the_update_at_the_present_parameters():
    agent, batch = Iql(**SETTINGS), make_batch(BATCH, dtype=jnp.float64)
    state = random_state(agent)
    losses = jax.jit(Iql.losses)(agent, state, batch, (), ())
    q = np.min(values_of(state.values.target_critic, batch.observation, batch.action), axis=1)
    weight = _weight(state.values.value, q, batch)
    assert losses["policy_loss"] == pytest.approx(float(_policy_loss(state.actor, weight, batch)))
    assert losses["value_loss"] == pytest.approx(float(_value_loss(state.values.value, q, batch)))
    _, metrics = update(agent, state, batch, (), ())
    assert set(metrics) - set(losses) == {"value_grad_norm", "critic_grad_norm", "policy_grad_norm"}


def test_an_update_of_iql_at_full_size_costs_no_more_than_the_reference():
    sizes = {"observation": (28,), "action": (5,), "reward": (), "discount": ()}
    sizes |= {"next_observation": (28,), "next_action": (5,)}
    with jax.enable_x64(False):
        agent = Iql()
        state = jax.eval_shape(lambda key: agent.init(28, 5, key=key), jax.random.key(0))
        batch = Transition(**{name: jnp.zeros((256, *size)) for name, size in sizes.items()})
        cost: Any = update.lower(agent, state, batch, (), ()).compile().cost_analysis()
    assert 6e9 < cost["flops"] <= 7.5e9


@pytest.mark.parametrize("agent_class", [Bc, Iql])
def test_bad_settings_are_refused(agent_class):
    with pytest.raises(ValueError, match="hidden_sizes"):
        agent_class(hidden_sizes=())
    with pytest.raises(ValueError, match="learning_rate is -1"):
        agent_class(learning_rate=-1.0)


def test_iql_refuses_an_expectile_beyond_1():
    with pytest.raises(ValueError, match="expectile is 1.5; give a number from 0 to 1"):
        Iql(expectile=1.5)
