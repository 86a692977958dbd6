"""How SORL decides: plain sampling, best-of-N, and the step counts that a budget shows to policy and critic."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import Budget, Sorl
from sorl.agents.actors import GeneratorAndCritic
from sorl.agents.actors.shortcut import largest_trained
from sorl.data.normalisation import Normalisation
from sorl.functional import shortcut, verifiers
from sorl.policy import decide

from ..random_networks import ACTION_SIZE, OBSERVATION_SIZE, make_batch, make_critic, make_field


def _acting(aggregation: verifiers.Aggregation = "mean"):
    agent = Sorl(discretization_steps=4, backprop_steps=2, q_aggregation=aggregation)
    return agent, GeneratorAndCritic(make_field(6), make_critic(7)), make_batch(8).observation


@pytest.mark.parametrize("steps", [1, 4])
def test_one_candidate_is_a_plain_sample_bit_for_bit(steps):
    agent, policy, observations = _acting()
    budget = Budget(inference_steps=steps)
    noise = jax.random.normal(jax.random.key(0), (8, 1, ACTION_SIZE))
    actions = jax.jit(jax.vmap(lambda x, n: agent.actor.act(policy, x, n, budget)))(observations, noise)
    plain = jax.jit(jax.vmap(lambda x, n: shortcut.sample(policy.generator, x, n, steps)))(observations, noise[:, 0])
    np.testing.assert_array_equal(actions, plain)


@pytest.mark.parametrize("aggregation", ["mean", "min"])
def test_best_of_n_in_a_batch_takes_what_one_by_one_takes_and_never_less(aggregation):
    agent, policy, observations = _acting(aggregation)
    budget = Budget(inference_steps=2, candidates=6)
    noise = jax.random.normal(jax.random.key(0), (8, 6, ACTION_SIZE))
    act = jax.jit(lambda x, n: agent.actor.act(policy, x, n, budget))
    together = jax.jit(jax.vmap(act))(observations, noise)

    @jax.jit
    @jax.vmap
    def value(observation, action):
        return verifiers.aggregate(policy.critic(observation, action, jnp.array(2.0)), aggregation)

    @jax.jit
    def candidate_values(observation, noise):
        candidates = jax.vmap(lambda n: shortcut.sample(policy.generator, observation, n, 2))(noise)
        return value(jnp.broadcast_to(observation, (6, OBSERVATION_SIZE)), candidates)

    best = np.array([candidate_values(x, n).max() for x, n in zip(observations, noise, strict=True)])
    alone = jnp.stack([act(x, n) for x, n in zip(observations, noise, strict=True)])
    np.testing.assert_allclose(value(observations, together), best, atol=1e-5)
    np.testing.assert_allclose(value(observations, alone), best, atol=1e-5)
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_batched_best_of_n_acts_as_one_by_one_does():
    agent, policy, _ = _acting()
    normalisation = Normalisation.identity(OBSERVATION_SIZE, ACTION_SIZE)
    observations = jnp.asarray(np.random.default_rng(11).normal(size=(16, OBSERVATION_SIZE)), jnp.float32)
    keys = jax.random.split(jax.random.key(12), 16)

    def act(rows, budget):
        return decide(agent.actor, policy, normalisation, observations[rows], keys[rows], budget)

    # Little noise: no two actions end in the same corner of the box.
    usual = Budget(4, 8, noise_scale=0.2)
    for budget in (
        usual,
        dataclasses.replace(usual, verifier=verifiers.Min()),
        dataclasses.replace(usual, verifier=verifiers.Softmax(0.1)),
    ):
        together = act(np.arange(16), budget)
        alone = np.concatenate([act(np.array([row]), budget) for row in range(16)])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
        assert len(np.unique(together, axis=0)) == 16


def test_noise_scale_of_zero_always_takes_the_same_path():
    agent, policy, observations = _acting()
    noise = jax.random.normal(jax.random.key(0), (2, 3, ACTION_SIZE))

    def act(noise, scale):
        return agent.actor.act(policy, observations[0], noise, Budget(candidates=3, noise_scale=scale))

    act = jax.jit(act, static_argnums=1)
    np.testing.assert_array_equal(act(noise[0], 0.0), act(noise[1], 0.0))
    assert np.any(act(noise[0], 1.0) != act(noise[1], 1.0))
    np.testing.assert_array_equal(act(noise[0], 0.5), act(0.5 * noise[0], 1.0))


def test_step_counts_shown_beyond_the_trained_ones():
    asked = (1, 2, 3, 4, 7, 8, 16, 100)
    assert [largest_trained(steps, 8) for steps in asked] == [1, 2, 2, 4, 4, 8, 8, 8]
    assert [largest_trained(steps, 4) for steps in asked] == [1, 2, 2, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    "budget, expected",
    [
        (Budget(inference_steps=1, candidates=2), 0.0),
        (Budget(inference_steps=1, candidates=2, policy_conditioning=8), 0.3),
        (Budget(inference_steps=1, candidates=2, critic_conditioning=4), 0.5),
        (Budget(inference_steps=16, candidates=2), 0.8),
        (Budget(inference_steps=16, candidates=2, policy_conditioning=2, critic_conditioning=2), 0.1),
    ],
)
def test_the_budget_says_which_step_counts_are_shown(budget, expected):
    agent = Sorl(discretization_steps=8, backprop_steps=4)
    # A field that adds a tenth of the log2 M it is shown, and a critic that prefers large actions for k above 3 only.
    policy = GeneratorAndCritic(make_field(), make_critic())
    policy = eqx.tree_at(
        lambda p: (p.generator, p.critic),
        policy,
        (lambda x, a, t, level: 0.1 * level * jnp.ones_like(a), lambda x, a, k: a * (k - 3)),
    )
    action = agent.actor.act(policy, jnp.zeros(1), jnp.array([[0.0], [0.5]]), budget)
    np.testing.assert_allclose(action, [expected], atol=1e-6)


def _chooser(head_values):
    """An agent and a policy whose candidates are their noise, and whose critic has these values at them, by head."""
    policy = eqx.tree_at(
        lambda p: (p.generator, p.critic),
        GeneratorAndCritic(make_field(), make_critic()),
        (lambda x, a, t, level: jnp.zeros_like(a), lambda x, a, k: head_values[jnp.argmin(jnp.abs(CANDIDATES - a))]),
    )
    return Sorl(), policy


CANDIDATES = jnp.array([-0.5, 0.0, 0.5])


@pytest.mark.parametrize("trained, asked, expected", [("mean", None, 0.5), ("mean", "min", 0.0), ("min", "mean", 0.5)])
def test_the_verifier_may_aggregate_heads_otherwise_than_the_targets(trained, asked, expected):
    # Means 1, 2, 3; minima 0, 2, -4.
    _, policy = _chooser(jnp.array([[0.0, 2.0], [2.0, 2.0], [-4.0, 10.0]]))
    agent = Sorl(q_aggregation=trained)
    budget = Budget(inference_steps=1, candidates=3, verifier=asked and verifiers.named(asked))
    assert agent.actor.act(policy, jnp.zeros(1), CANDIDATES[:, None], budget) == expected


VALUES = jnp.log(jnp.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    "temperature, expected",
    # exp(Q / T), normalised: Q / T = log v / T.
    [
        (1.0, [1 / 6, 2 / 6, 3 / 6]),
        (0.5, [1 / 14, 4 / 14, 9 / 14]),
        (1e-3, [0.0, 0.0, 1.0]),
        (1e4, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_softmax_takes_each_candidate_as_often_as_its_value_says(temperature, expected):
    agent, policy = _chooser(jnp.stack([VALUES + 1, VALUES - 1], axis=1))
    budget = Budget(inference_steps=1, candidates=3, verifier=verifiers.Softmax(temperature))

    @jax.jit
    @jax.vmap
    def act(key):
        draws = agent.actor.draw_action(1, budget, key=key)
        draws = eqx.tree_at(lambda d: d.noise, draws, CANDIDATES[:, None])
        return agent.actor.act(policy, jnp.zeros(1), draws, budget)[0]

    found = act(jax.random.split(jax.random.key(0), 10_000))
    frequencies = [float(jnp.mean(found == candidate)) for candidate in CANDIDATES]
    np.testing.assert_allclose(frequencies, expected, atol=0.02)  # four standard errors of 10,000 draws


def test_extra_draws_leave_the_initial_noise_of_other_budgets_alone():
    agent, key = Sorl(), jax.random.key(3)
    for budget in (
        Budget(candidates=4),
        Budget(candidates=4, verifier=verifiers.Min()),
        Budget(verifier=verifiers.Softmax(2.0)),
    ):
        noise = agent.actor.draw_action(2, budget, key=key)
        np.testing.assert_array_equal(noise, jax.random.normal(key, (budget.candidates, 2)))
    draws: Any = agent.actor.draw_action(2, Budget(candidates=4, verifier=verifiers.Softmax(2.0)), key=key)
    assert draws.noise.shape == (4, 2) and draws.gumbel.shape == (4,)


def test_names_tell_verifiers_apart():
    budgets = [Budget(4, 8), Budget(4, 8, verifier=verifiers.Min()), Budget(4, 8, verifier=verifiers.Softmax(0.5))]
    assert [budget.name for budget in budgets] == ["M4N8", "M4N8-min", "M4N8-softmax0.5"]


def test_agents_without_a_choice_of_verifier_refuse_one():
    own = Sorl().actor.budgets._replace(other_verifiers=False)
    own.refuse(Budget(4, 8))
    for budget in (Budget(4, 8, verifier=verifiers.Min()), Budget(4, 8, verifier=verifiers.Softmax(1.0))):
        Sorl().actor.budgets.refuse(budget)
        with pytest.raises(ValueError, match="This agent does not choose among candidates"):
            own.refuse(budget)


@pytest.mark.parametrize(
    "budget",
    [
        {"inference_steps": 0},
        {"candidates": 0},
        {"noise_scale": -1.0},
    ],
)
def test_budgets_that_cannot_act_are_refused(budget):
    with pytest.raises(ValueError, match="give"):
        Budget(**budget)


def test_a_verifier_that_is_none_is_refused_where_types_are_not_checked():
    budget = Budget()
    object.__setattr__(budget, "verifier", "min")  # past the type checker, which users do not have
    with pytest.raises(ValueError, match="verifier is 'min'; give one of sorl.functional.verifiers, or None."):
        budget.__check_init__()
