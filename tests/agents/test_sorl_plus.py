"""Each switch of `SorlPlus` by hand: its parts, and how it acts."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget
from sorl.agents import SorlPlus
from sorl.agents.actors import GeneratorAndCritic
from sorl.agents.shared import plus_losses
from sorl.agents.shared.shortcut_agent import SorlSharedDraws, SorlState, consistency_levels
from sorl.config import presets
from sorl.data.transitions import Window
from sorl.functional import optimisation
from sorl.functional.verifiers import LowerBound, Mean, Softmax
from sorl.networks import CriticEnsemble, ShortcutField
from sorl.system.accelerators import traced_for

from .. import synthetic
from ..random_networks import ACTION_SIZE, OBSERVATION_SIZE, double, make, make_batch, make_field, make_policy
from .plus import plus


SIZES: Any = (OBSERVATION_SIZE, ACTION_SIZE, (8,))


def _state(agent: Any) -> SorlState:
    """A state as `init` makes it, from numpy's generator: nothing to compile."""
    field = make(ShortcutField, *SIZES, seed=0)
    critic = make(CriticEnsemble, *SIZES, seed=1, sees_steps=agent.critic_sees_steps)
    return SorlState(field, field, critic, critic, optimisation.init(field), optimisation.init(critic))


@pytest.mark.parametrize(
    "fields",
    [
        {"one_jump_share": 0.5, "q_loss_pessimism": 0.5, "q_step_weights": (0.0, 1.0)},
        {"backup_candidates": 2, "backprop_steps": 1},
        {"backup_inference_steps": 2, "td_gradient_to_policy": True},
        {"cloning_weight": 0.1, "distillation_coefficient": 1.0, "backprop_steps": 1},
        {"renoise": 2, "backprop_steps": 1},
    ],
)
def test_the_update_on_an_accelerator_equals_that_on_cpu(x64, fields):
    agent = plus(**({"backprop_steps": 2} | fields))
    averages = {
        "target_field": make(ShortcutField, *SIZES, seed=2),
        "target_critic": make(CriticEnsemble, *SIZES, seed=3),
    }
    state = dataclasses.replace(_state(agent), **averages)
    inputs: Any = double((state, make_batch(6), agent.draw(6, ACTION_SIZE, key=jax.random.key(0))))
    shared = agent.draw_shared(jnp.int32(0), key=jax.random.key(0))
    assert shared.policy_steps == len(agent.step_counts) - 1

    @functools.partial(jax.jit, static_argnums=0)
    def update(platform: str, *inputs: Any) -> Any:
        with traced_for(platform, alone=True):
            state, batch, draws = inputs
            return agent.update(state, batch, draws, shared)

    one, other = (update(platform, *inputs) for platform in ("cuda", "cpu"))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_backup_with_four_candidates_costs_at_most_1_6_times_as_much(monkeypatch):
    """In operations at the published sizes, over all jump counts; the analysis counts only one branch of a program.

    Each jump adds the same operations, so that those of many jumps follow from those of one and two.
    """
    dataset = synthetic.dataset(observation_size=28, action_size=5)
    batch = jax.eval_shape(lambda: dataset.take(jnp.zeros(256, jnp.int32), Window(), 0.99))

    def operations(steps: int, **fields: Any) -> float:
        monkeypatch.setattr(SorlPlus, "step_counts", (steps,))
        agent, key = SorlPlus(**fields), jax.random.key(0)
        state = jax.eval_shape(lambda: agent.init(28, 5, key=key))
        draws = jax.eval_shape(lambda: agent.draw(256, 5, key=key))
        shared = jax.eval_shape(lambda: agent.draw_shared(jnp.int32(0), key=key))
        # A function of its own, because jit would find the program of another step count.
        update = jax.jit(lambda *inputs: SorlPlus.update(*inputs))
        found: Any = update.lower(agent, state, batch, draws, shared).cost_analysis()
        return found["flops"]

    def over_all_counts(**fields: Any) -> float:
        one, two = (operations(steps, **fields) for steps in (1, 2))
        return sum(one + (steps - 1) * (two - one) for steps in (1, 2, 4, 8))

    plain = over_all_counts()
    assert plain == pytest.approx(sum(operations(steps) for steps in (1, 2, 4, 8)), rel=1e-6)
    assert over_all_counts(backup_candidates=4) < 1.6 * plain
    # Without a Q loss, as this backup is meant, an update costs about as much as one of `Sorl`.
    assert over_all_counts(backup_candidates=4, use_q_loss=False) < 1.1 * plain


# Parts.


def test_candidates_and_rows_can_be_in_any_order():
    agent, batch = plus(backup_candidates=3, cloning_weight=0.1), make_batch(6)
    state = _state(agent)
    draws, shared = agent.draw(6, ACTION_SIZE, key=jax.random.key(1)), SorlSharedDraws(jnp.int32(1), jnp.int32(1))
    losses = jax.jit(SorlPlus.losses)
    found = losses(agent, state, batch, draws, shared)
    # Another order of the candidates leaves the maximum as it is.
    turned = dataclasses.replace(draws, target_noise=draws.target_noise[::-1])
    assert losses(agent, state, batch, turned, shared)["critic_loss"] == found["critic_loss"]
    # The rows of equal step sizes, with their draws: 0 and 1, 2 and 3, 4 and 5.
    order = jnp.array([1, 0, 3, 2, 5, 4])

    @jax.jit
    def in_order(batch, draws):
        rows = jax.tree.map(lambda x: x[order], (batch, dataclasses.replace(draws, target_noise=draws.flow_noise)))
        return rows[0], dataclasses.replace(rows[1], target_noise=draws.target_noise[:, order])

    for name, value in losses(agent, state, *in_order(batch, draws), shared).items():
        assert value == pytest.approx(float(found[name]), rel=2e-5), name


def test_the_best_of_one_candidate_repeated_is_that_candidate():
    one, three = plus(), plus(backup_candidates=3)
    state, batch = _state(one), make_batch(6)
    draws, shared = one.draw(6, ACTION_SIZE, key=jax.random.key(1)), SorlSharedDraws(jnp.int32(0), jnp.int32(1))
    repeated = dataclasses.replace(draws, target_noise=jnp.stack([draws.target_noise] * 3))
    losses = jax.jit(SorlPlus.losses)
    found, expected = losses(three, state, batch, repeated, shared), losses(one, state, batch, draws, shared)
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-5), name


def test_a_fixed_number_of_jumps_in_the_backup_leaves_the_critics_own_drawn():
    """With one head for each k: where the critic ignores k, the fixed number is all that counts."""
    fields: Any = {"critic_sees_steps": False, "backup_candidates": 2}
    free, fixed = plus(**fields), plus(**fields, backup_inference_steps=1)
    state, batch = _state(free), make_batch(6)
    draws, losses = free.draw(6, ACTION_SIZE, key=jax.random.key(1)), jax.jit(SorlPlus.losses)
    shared = [SorlSharedDraws(jnp.int32(0), jnp.int32(index)) for index in (0, 1)]
    of_free = [losses(free, state, batch, draws, drawn)["critic_loss"] for drawn in shared]
    of_fixed = [losses(fixed, state, batch, draws, drawn)["critic_loss"] for drawn in shared]
    assert of_fixed[0] == of_fixed[1] == pytest.approx(float(of_free[0]), rel=1e-6)
    assert of_free[1] != of_free[0]


@pytest.mark.parametrize("steps, grid, shown", [(2, 8, 2), (3, 8, 2), (16, 8, 8), (4, 2, 2)])
def test_the_backup_shows_the_field_what_acting_shows_it(steps, grid, shown):
    """The velocity is a tenth of the log2 of the number shown, so that all jumps together move by that much."""
    agent = plus(backup_inference_steps=steps, discretization_steps=grid)

    def field(observation, action, time, log2_steps):
        return jnp.full_like(action, log2_steps / 10)

    observation, noise = jnp.ones((2, 3)), jnp.array([[-0.5, 0.25], [0.0, 0.5]])
    found = plus_losses.sample(agent, field, observation, noise, steps)
    np.testing.assert_allclose(found, noise + math.log2(shown) / 10, rtol=1e-6)
    networks, usual = GeneratorAndCritic(field, make(CriticEnsemble, *SIZES, seed=1)), agent.actor.budgets.usual
    for row in range(2):
        action = agent.actor.act(networks, observation[row], noise[row : row + 1], usual)
        np.testing.assert_allclose(action, found[row], rtol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"backup_inference_steps": 3},
        {"backup_inference_steps": 16},
        {"backup_inference_steps": 3, "td_gradient_to_policy": True},
        {"backup_inference_steps": 4, "renoise": 3, "discretization_steps": 4},
    ],
)
def test_the_td_target_values_the_action_at_the_usual_budget(fields):
    agent, batch = plus(**fields), make_batch(6)
    state, key = _state(agent), jax.random.key(1)
    draws, shared = agent.draw(6, ACTION_SIZE, key=key), SorlSharedDraws(jnp.int32(0), jnp.int32(0))
    found = jax.jit(SorlPlus.losses)(agent, state, batch, draws, shared)

    @jax.jit
    def expected(noise):
        def act(observation, noise):
            return agent.actor.act(agent.policy(state), observation, noise[None], agent.actor.budgets.usual)

        action = jax.vmap(act, in_axes=(0, 1 if agent.renoise else 0))(batch.next_observation, noise)
        k = jnp.float32(agent.step_counts[0])
        next_q = state.target_critic(batch.next_observation, action, k).mean(-1)
        return jnp.mean(batch.reward + batch.discount * next_q)

    assert found["target_q_mean"] == pytest.approx(float(expected(draws.target_noise)), rel=1e-5)


def test_shares_of_self_consistency_rows():
    np.testing.assert_array_equal(consistency_levels(10, 8, 0.4), [2, 2, 2, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(consistency_levels(4, 8, 1.0), [0, 0, 0, 0])
    np.testing.assert_array_equal(consistency_levels(4, 8, 0.0), [2, 2, 1, 1])
    np.testing.assert_array_equal(consistency_levels(4, 2, 0.5), [0, 0, 0, 0])  # there is one size alone
    times = SorlPlus(one_jump_share=1.0).draw(64, 2, key=jax.random.key(0)).consistency_time
    np.testing.assert_array_equal(times, np.zeros(64))


def test_jump_counts_of_the_q_loss_follow_their_weights():
    keys = jax.random.split(jax.random.key(0), 4000)

    def counts(**fields):
        drawn = jax.jit(jax.vmap(lambda key: SorlPlus(**fields).draw_shared(jnp.int32(0), key=key)))(keys)
        return [np.bincount(steps, minlength=4) for steps in (drawn.policy_steps, drawn.target_steps)], drawn

    (policy, target), drawn = counts(q_step_weights=(2.0, 0.0, 1.0, 1.0))
    # 2000, 0, 1000 and 1000 expected, with standard deviations of at most 32.
    assert policy[1] == 0 and np.abs(policy - [2000, 0, 1000, 1000]).max() < 5 * 32
    # Those of the TD target are the same as without weights, and independent of the others.
    (_, uniform), plain = counts()
    np.testing.assert_array_equal(drawn.target_steps, plain.target_steps)
    assert abs(np.corrcoef(drawn.policy_steps, drawn.target_steps)[0, 1]) < 5 / math.sqrt(4000)
    assert np.array_equal(target, uniform)


def test_noise_has_an_axis_for_candidates_and_re_noised_jumps():
    def shapes(**fields):
        agent = SorlPlus(**fields)
        draws = jax.eval_shape(lambda: agent.draw(6, 2, key=jax.random.key(0)))
        return draws.policy_noise.shape, draws.target_noise.shape

    assert shapes() == ((6, 2), (6, 2))
    assert shapes(backup_candidates=4) == ((6, 2), (4, 6, 2))
    assert shapes(renoise=3) == ((3, 6, 2), (3, 6, 2))
    assert shapes(renoise=3, backup_candidates=4, backup_inference_steps=1) == ((3, 6, 2), (1, 4, 6, 2))
    # All draws of an update are different: correlations of 6000 pairs have a standard deviation of 0.013.
    draws = SorlPlus(renoise=2, backup_candidates=2).draw(3000, 2, key=jax.random.key(0))
    noises = [draws.flow_noise, draws.consistency_noise, *draws.policy_noise, *draws.target_noise.reshape(4, 3000, 2)]
    assert np.abs(np.corrcoef([np.ravel(noise) for noise in noises]) - np.eye(8)).max() < 0.07


def test_the_teachers_rate_is_its_own():
    field = {}
    for rate in (None, 0.5):
        agent = plus(teacher_rate=rate, target_rate=0.25, learning_rate=0.01)
        state = _state(agent)
        draws, shared = agent.draw(6, ACTION_SIZE, key=jax.random.key(1)), SorlSharedDraws(jnp.int32(0), jnp.int32(0))
        after, _ = jax.jit(SorlPlus.update)(agent, state, make_batch(6), draws, shared)
        for average, online, before, share in (
            (after.target_field, after.field, state.field, rate or 0.25),
            (after.target_critic, after.critic, state.critic, 0.25),
        ):
            for a, o, b in zip(*map(jax.tree.leaves, (average, online, before)), strict=True):
                np.testing.assert_allclose(a, share * o + (1 - share) * b, rtol=1e-5, atol=1e-7)
        field[rate] = after.field
    # The teacher of this update is that from before it.
    assert all(map(np.array_equal, *map(jax.tree.leaves, field.values())))


def test_distillation_is_the_error_of_one_jump_against_the_teachers_many():
    agent = plus(distillation_coefficient=2.0, discretization_steps=4)
    state = _state(agent)
    state = dataclasses.replace(state, target_field=make_field(3, hidden_sizes=(8,)))
    draws, batch = agent.draw(6, ACTION_SIZE, key=jax.random.key(1)), make_batch(6)
    found = jax.jit(SorlPlus.losses)(agent, state, batch, draws, SorlSharedDraws(jnp.int32(0), jnp.int32(0)))

    @jax.jit
    def expected(teacher, field):
        action = draws.policy_noise
        for step in range(4):
            action = action + teacher(batch.observation, action, jnp.float32(step / 4), jnp.float32(2)) / 4
        one = draws.policy_noise + field(batch.observation, draws.policy_noise, jnp.float32(0), jnp.float32(0))
        return jnp.mean((one - jnp.clip(action, -1, 1)) ** 2)

    loss = expected(state.target_field, state.field)
    assert found["distillation_loss"] == pytest.approx(float(loss), rel=1e-5)
    parts = 10 * found["flow_matching_loss"] + 10 * found["self_consistency_loss"] + 100 * found["q_loss"]
    assert found["policy_loss"] == pytest.approx(float(parts + 2 * found["distillation_loss"]), rel=1e-5)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"renoise": -1}, "renoise is -1"),
        ({"renoise": 2_000}, "renoise is 2000; give a whole number from 0 to 1024"),
        ({"backup_candidates": 0}, "backup_candidates is 0; give a whole number >= 1"),
        ({"backup_inference_steps": 0}, "backup_inference_steps is 0"),
        ({"cloning_weight": 0.0}, "cloning_weight is 0.0"),
        ({"target_pessimism": -1.0}, "target_pessimism is -1.0"),
        ({"verifier_pessimism": -1.0}, "verifier_pessimism is -1.0"),
        ({"one_jump_share": 1.5}, "one_jump_share is 1.5"),
        ({"teacher_rate": 2.0}, "teacher_rate is 2.0"),
        ({"q_step_weights": (1.0, 2.0)}, r"q_step_weights is \(1.0, 2.0\); give a weight for each of \(1, 2, 4, 8\)"),
        ({"q_step_weights": (0.0,) * 4}, "q_step_weights is .*, not all of them 0"),
        ({"q_step_weights": (1.0, -1.0, 1.0, 1.0)}, "q_step_weights is .* give numbers from 0"),
    ],
)
def test_settings_that_make_no_agent_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SorlPlus(**fields)


# Acting.


def test_the_usual_budget_is_that_of_the_backup():
    assert SorlPlus(backup_candidates=4).actor.budgets.usual == Budget(4, 4)
    assert SorlPlus(backup_candidates=4).actor.budgets.candidates == (1, 4, 8)
    assert SorlPlus(backup_candidates=8, backup_inference_steps=1).actor.budgets.usual == Budget(1, 8)
    chains = SorlPlus(renoise=2).actor.budgets
    assert (chains.usual, chains.inference_steps, chains.trained_steps) == (Budget(2), (1, 2, 4, 8), (2,))


@pytest.mark.parametrize(
    "fields, steps",
    [
        ({}, (1, 2, 4, 8)),
        ({"backup_candidates": 4}, (1, 2, 4, 8)),
        ({"renoise": 3}, (1, 2, 3, 4, 8)),
        ({"renoise": 4}, (1, 2, 4, 8)),
        ({"backup_inference_steps": 16}, (1, 2, 4, 8, 16)),
        ({"backup_inference_steps": 1, "renoise": 3}, (1, 2, 4, 8)),
    ],
)
def test_a_fixed_number_of_jumps_is_evaluated(fields, steps):
    assert SorlPlus(**fields).actor.budgets.inference_steps == steps


def test_the_settings_of_a_puzzle_are_evaluated_at_their_usual_budget():
    config = presets.paper("puzzle-3x3-play-singletask-task1-v0", SorlPlus)
    assert config.agent.actor.budgets.usual == Budget(3, 4)
    assert [budget.name for budget in config.budgets(final=False)] == ["M3N4", "M1N4", "M2N4", "M4N4", "M8N4"]
    assert [budget.name for budget in config.budgets(final=True)] == [
        f"M{steps}N{candidates}" for candidates in (1, 4, 8) for steps in (1, 2, 3, 4, 8)
    ]


@pytest.mark.parametrize("renoise", [0, 2])
def test_candidates_are_chosen_by_the_pessimistic_verifier_unless_a_budget_names_another(renoise):
    agent = plus(verifier_pessimism=1.0, renoise=renoise)
    networks, observation = make_policy(agent, 3, 2, seed=0, scale=0.2), jnp.ones(3)
    budget = Budget(2, 3)
    draws: Any = agent.actor.draw_action(2, budget, key=jax.random.key(0))
    draws = 0.3 * draws
    candidates = jnp.stack([agent.actor.act(networks, observation, draws[i : i + 1], Budget(2)) for i in range(3)])
    # The third has the highest mean. Mean less one deviation is 0.2, 0.4 - 0.3, 1 - 3 = 0.2, 0.1, -2.
    q = jnp.array([[0.2, 0.2], [0.7, 0.1], [4.0, -2.0]])

    class Critic:
        def __call__(self, observation, action, steps):
            assert float(steps) == 2
            return q[jnp.argmin(jnp.sum((candidates - action[None]) ** 2, axis=-1))]

    object.__setattr__(networks, "critic", Critic())
    for verifier, chosen in ((None, 0), (Mean(), 2), (LowerBound(0.0), 2), (LowerBound(0.1), 2)):
        action = agent.actor.act(networks, observation, draws, dataclasses.replace(budget, verifier=verifier))
        np.testing.assert_allclose(action, candidates[chosen], atol=1e-6)
    # A random choice uses it too: at a low temperature the best by it is drawn.
    cold = dataclasses.replace(budget, verifier=Softmax(1e-6))
    drawn: Any = agent.actor.draw_action(2, cold, key=jax.random.key(1))
    action = agent.actor.act(networks, observation, dataclasses.replace(drawn, noise=draws), cold)
    np.testing.assert_allclose(action, candidates[0], atol=1e-6)
