from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, Idql
from sorl.agents.idql import IdqlSharedDraws
from sorl.agents.shared import implicit_values as implicit
from sorl.agents.shared.diffusion_behaviour import BehaviourDraws
from sorl.functional import diffusion

from ..baseline_states import adam_step, assert_close, average, make_example, values_of
from ..random_networks import ACTION_SIZE, double


pytestmark = pytest.mark.usefixtures("x64")

SETTINGS: dict[str, Any] = {
    "width": 6,
    "blocks": 2,
    "denoising_steps": 4,
    "candidates": 3,
    "critic_hidden_sizes": (5,),
    "learning_rate": 0.01,
    "decay_updates": 10.0,
    "discount": 0.9,
    "target_rate": 0.1,
    "average_rate": 0.2,
    "expectile": 0.8,
}
update = jax.jit(Idql.update)
step_values = jax.jit(implicit.step)
ROUNDED = 1e-6
"""Adam's first step magnifies the rounding of gradients that are nearly zero, as those of a unit without effect."""


@pytest.fixture
def example():
    return make_example(Idql(**SETTINGS), rows=3)


def _at(step):
    return IdqlSharedDraws(jnp.int32(step))


def _model_loss(model, batch, draws, kept):
    """Row by row; the times are quarters, from 1 / 4 to 1."""
    errors = []
    for row, (x, action, noise) in enumerate(zip(batch.observation, batch.action, draws.noise, strict=True)):
        time = (jnp.floor(4 * draws.time[row]) + 1) / 4
        share = jnp.exp(-0.1 * time - 4.95 * time**2)
        noisy = jnp.sqrt(share) * action + jnp.sqrt(1 - share) * noise
        errors.append(jnp.sum((model(x, noisy, time, None if kept is None else kept[row]) - noise) ** 2))
    return jnp.mean(jnp.stack(errors))


model_loss = jax.jit(_model_loss)
model_gradient = jax.jit(jax.grad(_model_loss))


def test_losses_are_those_worked_out_row_by_row_without_dropout(example):
    agent, state, batch, draws = example
    losses = jax.jit(Idql.losses)(agent, state, batch, draws, _at(0))
    assert losses["noise_prediction_loss"] == pytest.approx(float(model_loss(state.model, batch, draws, None)))
    of_values = jax.jit(implicit.losses, static_argnames="aggregation")
    own = of_values(state.values, batch, expectile=0.8, aggregation="min")
    assert losses["value_loss"] == pytest.approx(float(own["value_loss"]))
    assert losses["critic_loss"] == pytest.approx(float(own["critic_loss"]))


def test_every_update_steps_the_model_with_dropout_and_its_average(example):
    agent, state, batch, draws = example
    new, metrics = update(agent, state, batch, draws, _at(5))
    loss = model_loss(state.model, batch, draws, draws.kept)
    gradient = model_gradient(state.model, batch, draws, draws.kept)
    # Half way through its decay the learning rate is half.
    model = adam_step(gradient, state.model, 0.005)
    assert_close(new.model, model, ROUNDED)
    assert_close(new.average_model, average(new.model, state.average_model, 0.2))
    assert metrics["noise_prediction_loss"] == pytest.approx(float(loss))


def test_every_second_update_steps_the_values_and_no_other_touches_them(example):
    agent, state, batch, draws = example
    odd, metrics = update(agent, state, batch, draws, _at(0))
    for a, b in zip(jax.tree.leaves(odd.values), jax.tree.leaves(state.values), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(metrics[name] == state.value_metrics[name] for name in implicit.METRICS)
    even, metrics = update(agent, state, batch, draws, _at(1))
    q = np.min(values_of(state.values.target_critic, batch.observation, batch.action), axis=1)
    values, expected = step_values(state.values, batch, q, expectile=0.8, learning_rate=0.01, target_rate=0.1)
    assert_close(even.values, values)
    assert metrics["value_loss"] == pytest.approx(float(expected["value_loss"]))
    # No value reaches the model.
    other, _ = update(Idql(**{**SETTINGS, "expectile": 0.3}), state, batch, draws, _at(1))
    assert not np.array_equal(other.values.critic.heads.layers[0].weight, even.values.critic.heads.layers[0].weight)
    for a, b in zip(jax.tree.leaves(even.model), jax.tree.leaves(other.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_draws_of_an_update():
    agent = Idql(width=8, blocks=2, dropout_rate=0.25)
    draws = jax.tree.map(np.asarray, jax.jit(lambda key: agent.draw(4096, 3, key=key))(jax.random.key(0)))
    assert abs(draws.noise.mean()) < 0.05 and abs(draws.noise.std() - 1) < 0.03
    assert 0 <= draws.time.min() and draws.time.max() < 1 and abs(draws.time.mean() - 0.5) < 0.03
    assert draws.kept is not None and draws.kept.shape == (4096, 2, 8)
    # Kept units are scaled up, so that the mean is 1.
    np.testing.assert_allclose(np.unique(draws.kept), [0, 4 / 3], rtol=1e-6)
    assert abs(draws.kept.mean() - 1) < 0.02
    assert Idql(dropout_rate=0.0).draw(4, 3, key=jax.random.key(0)).kept is None


def test_the_noise_levels_of_training_are_those_of_sampling(example):
    agent, *_ = example
    times = agent._grid_time(jnp.array([0.0, 0.2499, 0.25, 0.75, 0.9999]))
    np.testing.assert_array_equal(times, [0.25, 0.25, 0.5, 1.0, 1.0])


def test_it_acts_with_the_best_of_its_candidates_by_the_averages(example):
    agent, state, batch, _ = example
    usual = agent.actor.budgets.usual
    assert (usual.inference_steps, usual.candidates) == (4, 3)
    observation = batch.observation[0]
    noise = double(agent.actor.draw_action(ACTION_SIZE, usual, key=jax.random.key(2)))
    assert noise.shape == (3, 4, ACTION_SIZE)
    sample = jax.jit(lambda z: diffusion.sample(state.average_model, observation, z, 10.0))
    candidates = np.stack([sample(z) for z in noise])
    q = np.min(values_of(state.values.target_critic, [observation] * 3, candidates), axis=1)
    act = jax.jit(agent.actor.act, static_argnums=3)
    chosen = act(agent.policy(state), observation, noise, usual)
    np.testing.assert_allclose(chosen, candidates[np.argmax(q)], rtol=1e-9)
    # Another number of steps, and no noise.
    cold = act(agent.policy(state), observation, noise[:1, :2], Budget(2, noise_scale=0.0))
    np.testing.assert_allclose(cold, sample(jnp.zeros((2, ACTION_SIZE))), rtol=1e-9)


def test_without_dropout_an_update_takes_draws_without_it(example):
    _, state, batch, draws = example
    agent = Idql(**SETTINGS, dropout_rate=0.0)
    new, _ = update(agent, state, batch, BehaviourDraws(draws.noise, draws.time, None), _at(0))
    gradient = model_gradient(state.model, batch, draws, None)
    assert_close(new.model, adam_step(gradient, state.model, 0.01), ROUNDED)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"denoising_steps": 0}, "denoising_steps is 0; give a whole number >= 1"),
        ({"dropout_rate": 1.0}, "dropout_rate is 1.0; give a number from 0 to 0.99"),
        ({"most_noise_rate": 0.0}, "most_noise_rate is 0.0; give a number from 0.1"),
        ({"critic_hidden_sizes": ()}, "critic_hidden_sizes"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Idql(**settings)
