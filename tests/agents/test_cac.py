from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sorl import Budget, Cac
from sorl.agents.cac import CacDraws, CacSharedDraws
from sorl.functional import consistency

from ..baseline_states import assert_close, average, make_example, values_of
from ..random_networks import ACTION_SIZE, double


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "critic_hidden_sizes": (5,),
    "sampling_steps": 2,
    "backup_candidates": 3,
    "candidates": 4,
    "refinement_updates": 100.0,
    "learning_rate": 0.01,
    "max_grad_norm": 0.5,
    "discount": 0.9,
    "target_rate": 0.1,
    "q_coefficient": 0.7,
}
STEP = CacSharedDraws(jnp.int32(25))
update = jax.jit(Cac.update)
losses_of = jax.jit(Cac.losses)


@pytest.fixture
def example():
    return make_example(Cac(**SETTINGS), rows=3)


@jax.jit
def _clipped_adam(gradient, networks):
    chain = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.01))
    updates, _ = chain.update(gradient, chain.init(networks))
    return jax.tree.map(jnp.add, networks, updates)


def _critic_loss(critic, state, batch, draws):
    targets = []
    for row, x in enumerate(batch.next_observation):
        actions = [consistency.sample(state.target_network, x, noise) for noise in draws.target_noise[row]]
        best = jnp.max(values_of(state.target_critic, [x] * 3, actions), axis=0)
        targets.append(batch.reward[row] + batch.discount[row] * jnp.min(best))
    q = values_of(critic, batch.observation, batch.action)
    return jnp.mean((q - jnp.stack(targets)[:, None]) ** 2)


def _consistency_loss(network, teacher, batch, draws, points):
    def time(index):
        low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
        return (low + index / (points - 1) * (high - low)) ** 7

    losses = []
    for row, (x, action, noise) in enumerate(
        zip(batch.observation, batch.action, draws.consistency_noise, strict=True)
    ):
        index = jnp.floor(draws.consistency_place[row] * (points - 1))
        near, far = time(index), time(index + 1)
        answer = consistency.denoise(network, x, action + far * noise, far)
        target = jax.lax.stop_gradient(consistency.denoise(teacher, x, action + near * noise, near))
        losses.append(100 / (far - near) * jnp.mean((answer - target) ** 2))
    return jnp.mean(jnp.stack(losses))


consistency_loss = jax.jit(_consistency_loss)


def _q_loss(network, critic, batch, draws):
    samples = zip(batch.observation, draws.policy_noise, strict=True)
    actions = [consistency.sample(network, x, noise) for x, noise in samples]
    q = jnp.mean(values_of(critic, batch.observation, actions), axis=1)
    return -jnp.mean(q) / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))


# At update 25 of 100 the grid has ceil(sqrt((150^2 - 2^2) / 4 + 2^2) - 1) + 1 points.
POINTS = 76


def test_losses_are_those_worked_out_row_by_row(example):
    agent, state, batch, draws = example
    losses = losses_of(agent, state, batch, draws, STEP)
    assert losses["critic_loss"] == pytest.approx(float(jax.jit(_critic_loss)(state.critic, state, batch, draws)))
    cloning = consistency_loss(state.network, state.target_network, batch, draws, POINTS)
    assert losses["consistency_loss"] == pytest.approx(float(cloning))
    q_loss = jax.jit(_q_loss)(state.network, state.critic, batch, draws)
    assert losses["q_loss"] == pytest.approx(float(q_loss))
    assert losses["policy_loss"] == pytest.approx(float(cloning + 0.7 * q_loss))


def test_an_update_steps_the_critic_then_the_policy_then_both_averages(example):
    agent, state, batch, draws = example
    new, _ = update(agent, state, batch, draws, STEP)

    def policy_loss(network, critic):
        cloning = _consistency_loss(network, state.target_network, batch, draws, POINTS)
        return cloning + 0.7 * _q_loss(network, critic, batch, draws)

    critic = _clipped_adam(jax.jit(jax.grad(_critic_loss))(state.critic, state, batch, draws), state.critic)
    network = _clipped_adam(jax.jit(jax.grad(policy_loss))(state.network, critic), state.network)
    assert_close(new.critic, critic)
    assert_close(new.network, network)
    assert_close(new.target_critic, average(critic, state.target_critic, 0.1))
    assert_close(new.target_network, average(network, state.target_network, 0.1))


def test_each_loss_moves_its_own_network_alone(example):
    agent, state, batch, draws = example
    new, metrics = update(agent, state, batch, draws, STEP)
    other = double(agent.draw(3, ACTION_SIZE, key=jax.random.key(1)))
    for_policy = CacDraws(other.consistency_noise, other.consistency_place, other.policy_noise, draws.target_noise)
    moved, moved_metrics = update(agent, state, batch, for_policy, STEP)
    for a, b in zip(jax.tree.leaves(moved.critic), jax.tree.leaves(new.critic), strict=True):
        np.testing.assert_array_equal(a, b)
    assert moved_metrics["critic_loss"] == metrics["critic_loss"]
    assert moved_metrics["policy_loss"] != metrics["policy_loss"]
    # And the cloning loss does not depend on the critic's draws.
    for_critic = CacDraws(draws.consistency_noise, draws.consistency_place, draws.policy_noise, other.target_noise)
    moved, moved_metrics = update(agent, state, batch, for_critic, STEP)
    assert moved_metrics["critic_loss"] != metrics["critic_loss"]
    assert moved_metrics["consistency_loss"] == metrics["consistency_loss"]


def test_the_grid_of_times_is_that_of_the_step(example):
    agent, state, batch, draws = example
    for step, points in ((0, 2), (1, 16), (100, 150), (10_000, 150)):
        losses = losses_of(agent, state, batch, draws, CacSharedDraws(jnp.int32(step)))
        expected = consistency_loss(state.network, state.target_network, batch, draws, points)
        assert losses["consistency_loss"] == pytest.approx(float(expected))


def test_draws_of_an_update_are_all_different():
    draws = Cac(sampling_steps=2, backup_candidates=3).draw(4096, 2, key=jax.random.key(0))
    assert draws.target_noise.shape == (4096, 3, 2, 2)
    columns = [
        draws.consistency_noise.reshape(4096, -1),
        draws.policy_noise.reshape(4096, -1),
        draws.target_noise.reshape(4096, -1),
        draws.consistency_place[:, None] * np.sqrt(12),
    ]
    correlation = np.corrcoef(np.concatenate(columns, axis=1).T)
    # Of 4096 pairs, with a standard deviation of 0.016.
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.08
    assert 0 <= draws.consistency_place.min() and draws.consistency_place.max() < 1


def test_it_acts_with_the_best_of_its_candidates_by_the_target_critic(example):
    agent, state, batch, _ = example
    usual = agent.actor.budgets.usual
    assert (usual.inference_steps, usual.candidates) == (2, 4)
    observation = batch.observation[0]
    noise = double(agent.actor.draw_action(ACTION_SIZE, usual, key=jax.random.key(2)))
    assert noise.shape == (4, 2, ACTION_SIZE)
    sample = jax.jit(lambda z: consistency.sample(state.network, observation, z))
    candidates = np.stack([sample(z) for z in noise])
    q = np.min(values_of(state.target_critic, [observation] * 4, candidates), axis=1)
    act = jax.jit(agent.actor.act, static_argnums=3)
    chosen = act(agent.policy(state), observation, noise, usual)
    np.testing.assert_allclose(chosen, candidates[np.argmax(q)], rtol=1e-9)
    once = act(agent.policy(state), observation, noise[:1, :1], Budget(1))
    np.testing.assert_allclose(once, sample(noise[0, :1]), rtol=1e-9)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sampling_steps": 0}, "sampling_steps is 0; give a whole number >= 1"),
        ({"backup_candidates": 0}, "backup_candidates is 0"),
        ({"refinement_updates": 0.0}, "refinement_updates is 0.0; give a number from 1"),
        ({"discount": 1.1}, "discount is 1.1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Cac(**settings)
