import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Srpo
from sorl.agents.shared import implicit_values as implicit
from sorl.agents.srpo import SrpoSharedDraws

from ..baseline_states import adam_step, assert_close, make_example, values_of
from ..random_networks import ACTION_SIZE, double


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (5,),
    "width": 6,
    "blocks": 2,
    "critic_hidden_sizes": (5,),
    "pretraining_updates": 8,
    "decay_updates": 10.0,
    "learning_rate": 0.01,
    "discount": 0.9,
    "target_rate": 0.1,
    "expectile": 0.8,
    "q_coefficient": 0.7,
}
update = jax.jit(Srpo.update)


@pytest.fixture
def example():
    return make_example(Srpo(**SETTINGS), rows=3)


def _at(step):
    return SrpoSharedDraws(jnp.int32(step))


def _assert_equal(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def _share(time):
    return jnp.exp(-0.1 * time - 9.95 * time**2)


def _model_loss(model, batch, draws, kept):
    errors = []
    for row, (x, action, noise) in enumerate(zip(batch.observation, batch.action, draws.noise, strict=True)):
        time = 0.001 + 0.999 * draws.time[row]
        noisy = jnp.sqrt(_share(time)) * action + jnp.sqrt(1 - _share(time)) * noise
        errors.append(jnp.sum((model(x, noisy, time, None if kept is None else kept[row]) - noise) ** 2))
    return jnp.mean(jnp.stack(errors))


@jax.jit
def _actions(actor, batch):
    return [jnp.tanh(actor.mlp(x)) for x in batch.observation]


def _surrogate(actor, state, batch, draws):
    """Row by row: the policy's action times the direction that it is to leave, which is held fixed."""
    terms = []
    for row, x in enumerate(batch.observation):
        action, noise, time = jnp.tanh(actor.mlp(x)), draws.noise[row], 0.02 + 0.96 * draws.time[row]
        fixed = jax.lax.stop_gradient(action)
        noisy = jnp.sqrt(_share(time)) * fixed + jnp.sqrt(1 - _share(time)) * noise
        score = (1 - _share(time)) * (state.model(x, noisy, time) - noise)
        uphill = jax.grad(lambda a, x=x: jnp.mean(state.values.target_critic(x, a)))(fixed)
        terms.append(jnp.sum(jax.lax.stop_gradient(score - 0.7 * uphill) * action))
    return jnp.mean(jnp.stack(terms))


def test_phase_one_trains_the_model_and_in_turn_the_values_and_never_the_policy(example):
    agent, state, batch, draws = example
    loss, gradient = jax.jit(jax.value_and_grad(_model_loss))(state.model, batch, draws, draws.kept)
    q = np.min(values_of(state.values.target_critic, batch.observation, batch.action), axis=1)
    values, _ = jax.jit(implicit.step)(state.values, batch, q, expectile=0.8, learning_rate=0.01, target_rate=0.1)
    for step, expected in ((6, state.values), (7, values)):
        new, metrics = update(agent, state, batch, draws, _at(step))
        # Adam's first step magnifies the rounding of gradients that are nearly zero.
        assert_close(new.model, adam_step(gradient, state.model, 0.01), rtol=1e-6)
        assert_close(new.values, expected)
        _assert_equal((new.actor, new.actor_optimiser), (state.actor, state.actor_optimiser))
        assert metrics["noise_prediction_loss"] == pytest.approx(float(loss))
        assert metrics["policy_q_mean"] == state.metrics["policy_q_mean"]


def test_phase_two_trains_the_policy_alone_and_begins_after_the_last_update_of_phase_one(example):
    agent, state, batch, draws = example
    gradient = jax.jit(jax.grad(_surrogate))(state.actor, state, batch, draws)
    actions = _actions(state.actor, batch)
    q = values_of(state.values.target_critic, batch.observation, actions)
    # Its learning rate is whole at its first update, and half in the middle of its decay.
    for step, rate in ((8, 0.01), (13, 0.005)):
        new, metrics = update(agent, state, batch, draws, _at(step))
        assert_close(new.actor, adam_step(gradient, state.actor, rate))
        _assert_equal((new.model, new.values, new.model_optimiser), (state.model, state.values, state.model_optimiser))
        assert metrics["policy_q_mean"] == pytest.approx(float(q.mean()))
        assert metrics["noise_prediction_loss"] == state.metrics["noise_prediction_loss"]


class _GaussianNoise(eqx.Module):
    """The noise in expectation for data N(mean, deviation^2) in each dimension."""

    mean: Any
    deviation: float

    def __call__(self, observation, noisy, time):
        share = _share(time)
        variance = share * self.deviation**2 + 1 - share
        return jnp.sqrt(1 - share) * (noisy - jnp.sqrt(share) * self.mean) / variance


class _LinearCritic(eqx.Module):
    """Two heads, each linear in the action."""

    slopes: Any

    def __call__(self, observation, action):
        return self.slopes @ action


def test_the_direction_on_a_gaussian_score_and_a_linear_critic(example):
    agent, state, batch, draws = example
    mean, slopes = jnp.array([0.3, -0.2]), jnp.array([[1.0, 0.0], [3.0, -2.0]])
    state = eqx.tree_at(
        lambda s: (s.model, s.values.target_critic), state, (_GaussianNoise(mean, 0.5), _LinearCritic(slopes))
    )
    action = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, 2)))
    # Opposite noises cancel: sigma^3 sqrt(share) (a - mean) / (share / 4 + sigma^2), minus 0.7 of the mean slope.
    opposite = eqx.tree_at(lambda d: d.noise, draws, -draws.noise)
    direction_of = jax.jit(lambda d: agent._direction(state, action, batch, d)[0])
    direction = (direction_of(draws) + direction_of(opposite)) / 2
    for row in range(3):
        share = float(_share(0.02 + 0.96 * draws.time[row]))
        weight = (1 - share) ** 1.5 * math.sqrt(share) / (share / 4 + 1 - share)
        np.testing.assert_allclose(direction[row], weight * (action[row] - mean) - 0.7 * np.array([2, -1]), rtol=1e-9)


def test_normalised_guidance_has_a_root_mean_square_of_1(example):
    _, state, batch, draws = example
    action = jnp.zeros((3, 2))
    agents = Srpo(**SETTINGS, normalise_guidance=True), Srpo(**SETTINGS)
    normalised, plain = (jax.jit(lambda s, a=agent: a._direction(s, action, batch, draws)[0]) for agent in agents)
    # The mean slope is (3, 4): its root mean square is sqrt((9 + 16) / 2), whatever the scale of Q.
    for scale in (1.0, 1000.0):
        critic = _LinearCritic(scale * jnp.array([[2.0, 3.0], [4.0, 5.0]]))
        at = eqx.tree_at(lambda s: s.values.target_critic, state, critic)
        guidance = np.asarray(plain(at)) + 0.7 * scale * np.array([3, 4]) - np.asarray(normalised(at))
        np.testing.assert_allclose(guidance, [0.7 * np.array([3, 4]) / math.sqrt(12.5)] * 3, rtol=1e-7)


def test_normalised_guidance_of_a_flat_critic_is_0(example):
    _, state, batch, draws = example
    flat = eqx.tree_at(lambda s: s.values.target_critic, state, _LinearCritic(jnp.zeros((2, 2))))
    action = jnp.zeros((3, 2))
    agents = Srpo(**SETTINGS, normalise_guidance=True), Srpo(**SETTINGS)
    found, expected = jax.jit(lambda s: [agent._direction(s, action, batch, draws)[0] for agent in agents])(flat)
    np.testing.assert_array_equal(found, expected)


def test_losses_hold_both_phases_without_dropout(example):
    agent, state, batch, draws = example
    losses = jax.jit(Srpo.losses)(agent, state, batch, draws, _at(0))
    assert losses["noise_prediction_loss"] == pytest.approx(
        float(jax.jit(_model_loss)(state.model, batch, draws, None))
    )
    actions = _actions(state.actor, batch)
    q = values_of(state.values.target_critic, batch.observation, actions)
    assert losses["policy_q_mean"] == pytest.approx(float(q.mean()))
    assert set(state.metrics) - set(losses) == {
        "behaviour_grad_norm",
        "value_grad_norm",
        "critic_grad_norm",
        "policy_grad_norm",
    }


def test_it_acts_by_its_squashed_mean(example):
    agent, state, batch, _ = example
    usual = agent.actor.budgets.usual
    draws = double(agent.actor.draw_action(ACTION_SIZE, usual, key=jax.random.key(0)))
    action = agent.actor.act(agent.policy(state), batch.observation[0], draws, usual)
    np.testing.assert_allclose(action, np.tanh(state.actor.mlp(batch.observation[0])), rtol=1e-12)


def test_seeds_that_share_the_step_run_one_phase(example):
    agent, state, batch, draws = example
    states = jax.tree.map(lambda leaf: np.stack([leaf] * 3), state)
    traced = jax.make_jaxpr(jax.vmap(lambda s, h: agent.update(s, batch, draws, h), in_axes=(0, None)))(states, _at(0))
    assert sum(equation.primitive.name == "cond" for equation in traced.eqns) == 1


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"pretraining_updates": -1}, "pretraining_updates is -1; give a whole number from 0"),
        ({"value_interval": 0}, "value_interval is 0; give a whole number >= 1"),
        ({"q_coefficient": -0.1}, "q_coefficient is -0.1"),
        ({"hidden_sizes": ()}, "hidden_sizes"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Srpo(**settings)
