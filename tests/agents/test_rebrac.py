import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Rebrac
from sorl.agents.rebrac import RebracDraws, RebracSharedDraws
from sorl.functional import optimisation

from ..baseline_states import adam_step, assert_close, average, make_example, q_loss, values_of
from ..random_networks import ACTION_SIZE, double


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "critic_hidden_sizes": (5,),
    "learning_rate": 0.01,
    "discount": 0.9,
    "target_rate": 0.1,
    "actor_cloning_coefficient": 0.7,
    "critic_cloning_coefficient": 0.3,
    "target_noise": 0.5,
    "target_noise_limit": 0.6,
}
update = jax.jit(Rebrac.update)


@pytest.fixture
def example():
    return make_example(Rebrac(**SETTINGS), rows=6)


def _at(step):
    return RebracSharedDraws(jnp.int32(step))


@jax.jit
def _critic_loss(critic, state, batch, noise):
    next_actions = []
    for x, z in zip(batch.next_observation, noise, strict=True):
        action = jnp.tanh(state.target_actor.mlp(x)) + jnp.clip(0.5 * z, -0.6, 0.6)
        next_actions.append(jnp.clip(action, -1, 1))
    next_q = jnp.min(values_of(state.target_critic, batch.next_observation, next_actions), axis=1)
    distance = jnp.sum((jnp.stack(next_actions) - batch.next_action) ** 2, axis=1)
    return q_loss(critic, batch, next_q - 0.3 * distance)


@jax.jit
def _actor_loss(actor, critic, batch):
    actions = jnp.stack([jnp.tanh(actor.mlp(x)) for x in batch.observation])
    q = jnp.min(values_of(critic, batch.observation, actions), axis=1)
    distance = jnp.sum((actions - batch.action) ** 2, axis=1)
    return -jnp.mean(q) / jax.lax.stop_gradient(jnp.mean(jnp.abs(q))) + 0.7 * jnp.mean(distance)


critic_gradient = jax.jit(jax.grad(_critic_loss))
actor_gradient = jax.jit(jax.grad(_actor_loss))


def test_losses_are_those_worked_out_row_by_row(example):
    agent, state, batch, draws = example
    losses = jax.jit(Rebrac.losses)(agent, state, batch, draws, _at(0))
    assert losses["critic_loss"] == pytest.approx(float(_critic_loss(state.critic, state, batch, draws.target_noise)))
    assert losses["policy_loss"] == pytest.approx(float(_actor_loss(state.actor, state.critic, batch)))


def test_the_noise_of_the_target_is_limited(example):
    agent, state, batch, _ = example
    # 0.5 z beyond 0.6 is 0.6: noise of 1.2 and of 50 are the same.
    losses_of = jax.jit(Rebrac.losses)
    losses = [
        losses_of(agent, state, batch, RebracDraws(jnp.full((6, ACTION_SIZE), z)), _at(0))["critic_loss"]
        for z in (1.2, 50.0, 0.4)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_an_even_update_steps_the_critic_then_the_actor_then_both_averages(example):
    agent, state, batch, draws = example
    new, metrics = update(agent, state, batch, draws, _at(1))  # the second update
    gradient = critic_gradient(state.critic, state, batch, draws.target_noise)
    critic = adam_step(gradient, state.critic, 0.01)
    actor = adam_step(actor_gradient(state.actor, critic, batch), state.actor, 0.01)
    assert_close(new.critic, critic)
    assert_close(new.actor, actor)
    assert_close(new.target_critic, average(critic, state.target_critic, 0.1))
    assert_close(new.target_actor, average(actor, state.target_actor, 0.1))
    assert metrics["policy_loss"] == pytest.approx(float(_actor_loss(state.actor, critic, batch)))


def test_an_odd_update_leaves_the_actor_and_the_averages_alone(example):
    agent, state, batch, draws = example
    new, metrics = update(agent, state, batch, draws, _at(0))  # the first update
    kept = ("actor", "target_actor", "target_critic", "actor_optimiser", "policy_metrics")
    for name in kept:
        for a, b in zip(jax.tree.leaves(getattr(new, name)), jax.tree.leaves(getattr(state, name)), strict=True):
            np.testing.assert_array_equal(a, b)
    gradient = critic_gradient(state.critic, state, batch, draws.target_noise)
    assert_close(new.critic, adam_step(gradient, state.critic, 0.01))
    # The actor's metrics are those of its last step.
    assert all(metrics[name] == state.policy_metrics[name] for name in state.policy_metrics)


def test_momentum_between_turns_is_one_adam_over_all_updates(example):
    """Against Adam written out in numpy, as the FQL paper's code runs it: a zero gradient between the actor's turns."""
    _, state, batch, draws = example
    agent = Rebrac(**SETTINGS, momentum_between_turns=True)
    mean, variance = (jax.tree.map(np.zeros_like, state.actor) for _ in range(2))
    expected = jax.tree.map(np.asarray, state.actor)
    for step in range(5):
        new, _ = update(agent, state, batch, draws, _at(step))
        turn = step % 2 == 1
        gradient = actor_gradient(state.actor, new.critic, batch)
        gradient = jax.tree.map(lambda g, turn=turn: turn * np.asarray(g), gradient)
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        variance = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, variance, gradient)
        scales = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
        expected = jax.tree.map(
            lambda x, m, v, s=scales: x - 0.01 * (m / s[0]) / (np.sqrt(v / s[1]) + 1e-8), expected, mean, variance
        )
        assert_close(new.actor, expected, rtol=1e-7)
        assert not np.array_equal(new.actor.mlp.layers[0].weight, state.actor.mlp.layers[0].weight) or step == 0
        for name in () if turn else ("target_actor", "target_critic", "policy_metrics"):
            for a, b in zip(jax.tree.leaves(getattr(new, name)), jax.tree.leaves(getattr(state, name)), strict=True):
                np.testing.assert_array_equal(a, b)
        state = new


def test_momentum_between_turns_acts_like_a_rate_sqrt_2_times_higher():
    """On a constant gradient, long after the start, a pair of updates moves by 2 * (1 / 2) / sqrt(1 / 2) rates."""

    def distance(steps, gradient_of):
        state, x = optimisation.init(jnp.zeros(1)), jnp.zeros(1)
        one = jax.jit(lambda g, state, x: optimisation.step(g, state, x, learning_rate=1.0)[:2])
        positions = []
        for index in range(steps):
            x, state = one(jnp.full(1, gradient_of(index)), state, x)
            positions.append(float(x[0]))
        return positions[-1] - positions[-3]

    assert distance(4000, lambda index: float(index % 2)) == pytest.approx(-math.sqrt(2), rel=1e-3)


def test_the_critic_gets_no_gradient_from_the_actor(example):
    agent, state, batch, draws = example
    other = Rebrac(**{**SETTINGS, "q_coefficient": 9.0, "actor_cloning_coefficient": 0.0})
    (new, _), (moved, _) = (update(a, state, batch, draws, _at(1)) for a in (agent, other))
    for a, b in zip(jax.tree.leaves(new.critic), jax.tree.leaves(moved.critic), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(new.actor.mlp.layers[0].weight, moved.actor.mlp.layers[0].weight)


def test_it_acts_by_its_squashed_mean(example):
    agent, state, batch, _ = example
    usual = agent.actor.budgets.usual
    draws = double(agent.actor.draw_action(ACTION_SIZE, usual, key=jax.random.key(0)))
    observation = batch.observation[0]
    action = agent.actor.act(agent.policy(state), observation, draws, usual)
    np.testing.assert_allclose(action, np.tanh(state.actor.mlp(observation)), rtol=1e-12)


def test_seeds_that_share_the_step_run_one_branch(example):
    agent, state, batch, draws = example
    states = jax.tree.map(lambda leaf: np.stack([leaf] * 3), state)
    traced = jax.make_jaxpr(jax.vmap(lambda s, d, h: agent.update(s, batch, d, h), in_axes=(0, None, None)))(
        states, draws, _at(0)
    )
    assert sum(equation.primitive.name == "cond" for equation in traced.eqns) == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"policy_interval": 0}, "policy_interval is 0; give a whole number >= 1"),
        ({"target_noise_limit": -1.0}, "target_noise_limit is -1"),
        ({"critic_hidden_sizes": ()}, "critic_hidden_sizes"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Rebrac(**settings)
