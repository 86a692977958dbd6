import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sorl.agents import Sorl
from sorl.agents.shared.shortcut_agent import SorlSharedDraws, SorlState, consistency_levels
from sorl.agents.sorl_released import SorlReleased
from sorl.functional import optimisation, shortcut, td
from sorl.networks import CriticEnsemble, ShortcutField
from sorl.system.accelerators import traced_for

from ..random_networks import ACTION_SIZE, OBSERVATION_SIZE, double, make, make_batch, make_critic, make_field


SETTINGS: dict[str, Any] = {
    "discretization_steps": 4,
    "backprop_steps": 2,
    "learning_rate": 0.01,
    "max_grad_norm": 0.5,
    "discount": 0.9,
    "target_rate": 0.1,
    "flow_matching_coefficient": 2.0,
    "self_consistency_coefficient": 3.0,
    "q_coefficient": 5.0,
}
METRICS = {
    "critic_loss",
    "q_mean",
    "target_q_mean",
    "flow_matching_loss",
    "self_consistency_loss",
    "q_loss",
    "policy_loss",
    "policy_q_mean",
    "critic_grad_norm",
    "policy_grad_norm",
}


# One compiled program for all tests that update: settings are arguments.
update = jax.jit(Sorl.update)
losses_of = jax.jit(Sorl.losses)


def _uneven_state() -> SorlState:
    sizes: Any = OBSERVATION_SIZE, ACTION_SIZE, (5, 7, 5)
    fields = [make(ShortcutField, *sizes, seed=seed, dtype=jnp.float64) for seed in (0, 4)]
    critics = [make(CriticEnsemble, *sizes, seed=seed, dtype=jnp.float64, heads=2) for seed in (1, 5)]
    return SorlState(
        field=fields[0],
        target_field=fields[1],
        critic=critics[0],
        target_critic=critics[1],
        field_optimiser=optimisation.init(fields[0]),  # pyright: ignore[reportArgumentType]
        critic_optimiser=optimisation.init(critics[0]),  # pyright: ignore[reportArgumentType]
    )


def _state(agent):
    field, critic = make_field(0, jnp.float64), make_critic(1, jnp.float64)
    return SorlState(
        field=field,
        target_field=make_field(4, jnp.float64),
        critic=critic,
        target_critic=make_critic(5, jnp.float64),
        field_optimiser=optimisation.init(field),  # pyright: ignore[reportArgumentType]
        critic_optimiser=optimisation.init(critic),  # pyright: ignore[reportArgumentType]
    )


def _shared(target_steps, policy_steps):
    """Jump counts 1 or 2, as indices."""
    return SorlSharedDraws(policy_steps=jnp.array(policy_steps - 1), target_steps=jnp.array(target_steps - 1))


def _assert_close(actual, expected, rtol=1e-9):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=rtol * max(float(np.abs(e).max()), 1e-3))


def _values(critic, field, observation, noise, steps):
    k = jnp.asarray(float(steps))
    return jax.vmap(lambda x, n: critic(x, shortcut.sample(field, x, n, steps), k))(observation, noise)


def _recomputed(agent, state, batch, draws, target_steps, policy_steps):
    """The update from plain functions, in the documented order."""

    def td_loss(critic, field):
        next_q = _values(state.target_critic, field, batch.next_observation, draws.target_noise, target_steps)
        target = batch.reward + batch.discount * jnp.mean(next_q, axis=1)
        k = jnp.asarray(float(target_steps))
        return td.td_loss(jax.vmap(lambda x, a: critic(x, a, k))(batch.observation, batch.action), target)

    # The target's own network is another: its gradient into the policy leaves the critic's gradient as it is.
    critic_gradient, into_policy = jax.grad(td_loss, argnums=(0, 1))(state.critic, state.field)
    chain = optax.chain(optax.clip_by_global_norm(agent.max_grad_norm), optax.adam(agent.learning_rate))
    updates, critic_optimiser = chain.update(critic_gradient, _chain_state(state.critic_optimiser))
    new_critic = jax.tree.map(jnp.add, state.critic, updates)

    def policy_loss(field):
        example = batch.observation, batch.action
        levels = jnp.asarray(consistency_levels(len(batch.reward), agent.discretization_steps), batch.reward.dtype)
        flow = shortcut.flow_matching_loss(field, *example, draws.flow_noise, draws.flow_time, 4)
        consistency = shortcut.self_consistency_loss(
            field, state.target_field, *example, draws.consistency_noise, draws.consistency_time, levels
        )
        # The critic that the step above made.
        q = _values(new_critic, field, batch.observation, draws.policy_noise, policy_steps)
        return 2 * flow + 3 * consistency + 5 * td.policy_q_loss(q)

    gradient = jax.grad(policy_loss)(state.field)
    if agent.td_gradient_to_policy:
        gradient = jax.tree.map(jnp.add, gradient, into_policy)
    updates, field_optimiser = chain.update(gradient, _chain_state(state.field_optimiser))
    new_field = jax.tree.map(jnp.add, state.field, updates)

    def average(new, old):
        return jax.tree.map(lambda n, o: 0.1 * n + 0.9 * o, new, old)

    return SorlState(
        field=new_field,
        target_field=average(new_field, state.target_field),
        critic=new_critic,
        target_critic=average(new_critic, state.target_critic),
        field_optimiser=_adam_state(field_optimiser),
        critic_optimiser=_adam_state(critic_optimiser),
    )


def _chain_state(adam: Any) -> Any:
    return optax.EmptyState(), (optax.ScaleByAdamState(adam.count, adam.mean, adam.variance), optax.EmptyState())


def _adam_state(chain_state: Any) -> optimisation.AdamState:
    _, (adam, _) = chain_state
    return optimisation.AdamState(adam.count, adam.mu, adam.nu)


@pytest.mark.parametrize("td_gradient_to_policy, target_steps", [(False, 2), (True, 1)])
def test_update_takes_its_steps_in_the_documented_order(x64, td_gradient_to_policy, target_steps):
    settings = SETTINGS | {"backprop_steps": target_steps}
    agent = Sorl(**settings, td_gradient_to_policy=td_gradient_to_policy)
    batch, state, metrics = make_batch(6, dtype=jnp.float64), _state(agent), {}
    expected = jax.jit(lambda s, d: _recomputed(agent, s, batch, d, target_steps, 1))
    for seed in range(2):  # the second has momentum and a moved average
        draws = double(agent.draw(6, ACTION_SIZE, key=jax.random.key(seed)))
        new_state, metrics = update(agent, state, batch, draws, _shared(target_steps, 1))
        _assert_close(new_state, expected(state, draws))
        state = new_state
    assert set(metrics) == METRICS | ({"td_policy_grad_norm"} if td_gradient_to_policy else set())


def test_each_loss_moves_its_own_network_alone(x64):
    agent, batch = Sorl(**SETTINGS), make_batch(6, dtype=jnp.float64)
    state, draws = _state(agent), double(agent.draw(6, ACTION_SIZE, key=jax.random.key(0)))
    other = double(agent.draw(6, ACTION_SIZE, key=jax.random.key(1)))
    new_state, metrics = update(agent, state, batch, draws, _shared(2, 2))
    # The Q loss, flow matching and self-consistency do not reach the critic: other draws for them change no bit of it.
    for_policy = dataclasses.replace(other, target_noise=draws.target_noise)
    moved, moved_metrics = update(agent, state, batch, for_policy, _shared(2, 1))
    for a, b in zip(jax.tree.leaves(moved.critic), jax.tree.leaves(new_state.critic), strict=True):
        np.testing.assert_array_equal(a, b)
    assert moved_metrics["policy_loss"] != metrics["policy_loss"]
    assert moved_metrics["critic_loss"] == metrics["critic_loss"]
    # And without the TD gradient, the policy's cloning losses do not depend on the TD target's noise.
    for_critic = dataclasses.replace(draws, target_noise=other.target_noise)
    moved, moved_metrics = update(agent, state, batch, for_critic, _shared(1, 2))
    assert moved_metrics["flow_matching_loss"] == metrics["flow_matching_loss"]
    assert moved_metrics["critic_loss"] != metrics["critic_loss"]


VALID = jnp.asarray([1.0, 1, 0, 1, 1, 0])


@pytest.mark.parametrize(
    "target_steps, policy_steps, alone, valid, td_gradient_to_policy",
    [
        (2, 1, True, None, False),
        (1, 2, True, VALID, False),
        (2, 2, False, None, False),
        (1, 1, False, VALID, True),
        (2, 2, True, None, True),
    ],
)
def test_the_update_on_an_accelerator_equals_that_on_cpu(
    x64, target_steps, policy_steps, alone, valid, td_gradient_to_policy
):
    # Layers of different widths, with biases other than zero, and averages other than the networks.
    agent = Sorl(**SETTINGS, td_gradient_to_policy=td_gradient_to_policy)
    batch = dataclasses.replace(make_batch(6, dtype=jnp.float64), valid=valid)
    draws = double(agent.draw(6, ACTION_SIZE, key=jax.random.key(0)))
    inputs = _uneven_state(), batch, draws, _shared(target_steps, policy_steps)

    @functools.partial(jax.jit, static_argnums=0)
    def updated(platform, *inputs):
        with traced_for(platform, alone=alone):
            return agent.update(*inputs)

    _assert_close(updated("cuda", *inputs), updated("cpu", *inputs))


def test_losses_are_those_of_the_update_at_the_present_parameters(x64):
    agent, batch = Sorl(**SETTINGS), make_batch(6, dtype=jnp.float64)
    state, draws = _state(agent), double(agent.draw(6, ACTION_SIZE, key=jax.random.key(0)))
    losses = losses_of(agent, state, batch, draws, _shared(1, 2))
    assert set(losses) == METRICS - {"critic_grad_norm", "policy_grad_norm"}
    q = jax.jit(_values, static_argnums=4)(state.critic, state.field, batch.observation, draws.policy_noise, 2)
    assert losses["q_loss"] == pytest.approx(float(td.policy_q_loss(q)), rel=1e-9)
    total = 2 * losses["flow_matching_loss"] + 3 * losses["self_consistency_loss"] + 5 * losses["q_loss"]
    assert losses["policy_loss"] == pytest.approx(float(total), rel=1e-9)


@pytest.mark.parametrize("agent_class", [Sorl, SorlReleased])
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"discretization_steps": 6}, "discretization_steps is 6; .* power of two"),
        ({"discretization_steps": 0}, "discretization_steps is 0; give a whole number >= 1"),
        ({"discretization_steps": 1, "backprop_steps": 1}, "discretization_steps is 1; .* at least 2"),
        ({"backprop_steps": 3}, "backprop_steps is 3; .* power of two"),
        ({"backprop_steps": 16}, "backprop_steps is 16 but the finest trained grid has 8 steps"),
        ({"critic_heads": 0}, "critic_heads is 0"),
        ({"hidden_sizes": ()}, r"hidden_sizes \(\)"),
        ({"critic_hidden_sizes": ()}, r"critic_hidden_sizes \(\)"),
    ],
)
def test_settings_that_make_no_agent_are_refused(agent_class, settings, message):
    with pytest.raises(ValueError, match=message):
        agent_class(**settings)


def test_jump_counts_are_powers_of_two_up_to_the_most_backpropagated():
    assert Sorl().step_counts == (1, 2, 4, 8)
    assert Sorl(backprop_steps=1).step_counts == (1,)
    assert Sorl(discretization_steps=16, backprop_steps=4).step_counts == (1, 2, 4)


def test_jump_counts_are_uniform_and_independent():
    shared = jax.vmap(lambda key: Sorl().draw_shared(jnp.int32(0), key=key))(jax.random.split(jax.random.key(0), 4000))
    counts = np.zeros((4, 4))
    np.add.at(counts, (shared.policy_steps, shared.target_steps), 1)
    # 250 expected in each of 16 cells, with a standard deviation of 15.
    assert counts.sum() == 4000
    assert np.abs(counts - 250).max() < 5 * 15.3


def test_draws_of_an_update():
    draws = jax.jit(lambda key: Sorl().draw(4096, 5, key=key))(jax.random.key(0))
    noises = draws.flow_noise, draws.consistency_noise, draws.policy_noise, draws.target_noise
    for noise in noises:
        assert noise.shape == (4096, 5)
        assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    # No two of them are the same draw: correlations of 20480 pairs have a standard deviation of 0.007.
    correlation = np.corrcoef([np.ravel(noise) for noise in noises])
    assert np.abs(correlation - np.eye(4)).max() < 0.04
    # Each of 8 times is drawn 512 times, with a standard deviation of 21.
    steps, counts = np.unique(8 * draws.flow_time, return_counts=True)
    np.testing.assert_array_equal(steps, np.arange(8))
    assert np.abs(counts - 512).max() < 5 * 21
    # Multiples of each row's own step, all below 1, and all of them.
    levels = consistency_levels(4096, 8)
    for level in (0, 1, 2):
        drawn = np.unique(2**level * draws.consistency_time[levels == level])
        np.testing.assert_array_equal(drawn, np.arange(2**level))


def test_self_consistency_steps_are_split_over_the_batch():
    levels = consistency_levels(256, 8)
    np.testing.assert_array_equal(levels, [2] * 85 + [1] * 85 + [0] * 86)
    np.testing.assert_array_equal(consistency_levels(3, 2), [0, 0, 0])
    np.testing.assert_array_equal(consistency_levels(5, 16), [3, 2, 1, 0, 0])


def test_init_makes_averages_that_equal_the_networks_and_share_no_buffer():
    agent = Sorl(hidden_sizes=(5,), critic_hidden_sizes=(4,), critic_heads=3)
    state = jax.jit(lambda key: agent.init(OBSERVATION_SIZE, ACTION_SIZE, key=key))(jax.random.key(0))
    for online, average in ((state.field, state.target_field), (state.critic, state.target_critic)):
        for a, b in zip(jax.tree.leaves(online), jax.tree.leaves(average), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a is not b
            assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()
    assert state.field.mlp.layers[0].weight.shape == (5, OBSERVATION_SIZE + ACTION_SIZE + 2)
    assert state.critic.heads.layers[0].weight.shape == (3, 4, OBSERVATION_SIZE + ACTION_SIZE + 1)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves((state.field_optimiser, state.critic_optimiser)))
    blind = jax.eval_shape(lambda key: Sorl(critic_sees_steps=False).init(3, 2, key=key), jax.random.key(0))
    assert blind.critic.heads.layers[0].weight.shape == (2, 512, 5)


def test_the_learning_rate_is_that_of_the_number_of_updates_made(x64):
    agent, draws = Sorl(**SETTINGS), double(Sorl(**SETTINGS).draw(6, ACTION_SIZE, key=jax.random.key(0)))
    made = eqx.tree_at(
        lambda s: (s.critic_optimiser.count, s.field_optimiser.count), _state(agent), (jnp.int32(30), jnp.int32(30))
    )
    falling = dataclasses.replace(agent, late_learning_rate=0.002, decay_start=20.0, decay_end=40.0)
    halfway = dataclasses.replace(agent, learning_rate=0.006)
    inputs = made, make_batch(6, dtype=jnp.float64), draws, _shared(1, 2)
    _assert_close(update(falling, *inputs), update(halfway, *inputs), 1e-6)
    with pytest.raises(ValueError, match="decay_end is 20.0; give a number from 21 to inf"):
        dataclasses.replace(falling, decay_end=20.0)
    with pytest.raises(ValueError, match="late_learning_rate is -1.0"):
        dataclasses.replace(falling, late_learning_rate=-1.0)


@pytest.mark.parametrize("agent_class", [Sorl, SorlReleased])
def test_seeds_that_share_jump_counts_run_one_branch(agent_class):
    agent = agent_class(hidden_sizes=(5,), critic_hidden_sizes=(5,), backprop_steps=2)

    def update_of_a_seed(key, shared):
        state = agent.init(OBSERVATION_SIZE, ACTION_SIZE, key=key)
        return agent.update(state, make_batch(6), agent.draw(6, ACTION_SIZE, key=key), shared)

    keys = jax.random.split(jax.random.key(0), 3)
    traced = jax.make_jaxpr(jax.vmap(update_of_a_seed, in_axes=(0, None)))(keys, _shared(1, 2))
    # One switch for the TD target and one for the Q loss: mapped over jump counts they would run every branch.
    assert sum(equation.primitive.name == "cond" for equation in traced.eqns) == 2
