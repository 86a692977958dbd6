"""Verifiers, by hand: values of heads, names, and choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import AGENTS, Budget
from sorl.agents.budget import of_today
from sorl.config.json_form import budget_from_json, to_json
from sorl.functional.verifiers import LowerBound, Mean, Min, Softmax, aggregate, best_of_n, in_force, lower_bound, named

from .. import synthetic
from ..random_networks import make_policy


Q = jnp.array([[1.0, 3.0], [2.5, 2.5], [-2.0, 8.0]])  # means 2, 2.5, 3; minima 1, 2.5, -2; deviations 1, 0, 5


@pytest.mark.parametrize(
    "verifier, values",
    [
        (Mean(), [2.0, 2.5, 3.0]),
        (Min(), [1.0, 2.5, -2.0]),
        (LowerBound(0.0), [2.0, 2.5, 3.0]),
        (LowerBound(0.5), [1.5, 2.5, 0.5]),
        (LowerBound(1.0), [1.0, 2.5, -2.0]),
        (Softmax(0.5), [2.0, 2.5, 3.0]),
        (Softmax(0.5, Min()), [1.0, 2.5, -2.0]),
    ],
)
def test_values_by_hand(verifier, values):
    np.testing.assert_allclose(verifier(Q), values, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(verifier)(Q), values, rtol=1e-6)
    np.testing.assert_allclose(aggregate(Q, verifier), values, rtol=1e-6)
    action, index = best_of_n(jnp.arange(3.0)[:, None], Q, verifier)
    assert index == np.argmax(values) and action == index


@pytest.mark.parametrize("heads", [1, 2, 3, 10])
def test_any_number_of_heads(heads):
    q = jnp.arange(float(heads))  # mean (h - 1) / 2, variance (h^2 - 1) / 12
    mean, deviation = (heads - 1) / 2, ((heads**2 - 1) / 12) ** 0.5
    np.testing.assert_allclose([Mean()(q), Min()(q), LowerBound(2.0)(q)], [mean, 0, mean - 2 * deviation], rtol=1e-5)


@pytest.mark.parametrize(
    "name, verifier",
    [
        ("mean", Mean()),
        ("min", Min()),
        ("lower-bound0.5", LowerBound(0.5)),
        ("softmax0.001", Softmax(0.001)),
        ("mean-softmax0.5", Softmax(0.5, Mean())),
        ("min-softmax0.5", Softmax(0.5, Min())),
        ("lower-bound1.0-softmax1e-05", Softmax(1e-5, LowerBound(1.0))),
    ],
)
def test_names_and_json(name, verifier):
    assert named(name) == verifier and verifier.name == name
    budget = Budget(2, 3, verifier=verifier)
    assert budget.name == f"M2N3-{name}" and to_json(budget)["verifier"] == name
    assert budget_from_json(to_json(budget), "here") == budget


@pytest.mark.parametrize("name", ["", "median", "softmax", "lower-bound", "min-", "-softmax1", "min-mean", "softmax-1"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="The verifier is .*; give mean, min, lower-bound1"):
        named(name)
    with pytest.raises(ValueError, match="here: verifier is .*; expected a verifier such as"):
        budget_from_json(to_json(Budget()) | {"verifier": name}, "here")


@pytest.mark.parametrize("make", [lambda: LowerBound(-1.0), lambda: Softmax(0.0), lambda: Softmax(float("nan"))])
def test_other_numbers_are_refused(make):
    with pytest.raises(ValueError, match="The verifier's (k|temperature) is .*; give a finite"):
        make()


@pytest.mark.parametrize(
    "aggregation, temperature, verifier",
    [
        (None, 0.0, None),
        ("min", 0.0, Min()),
        ("mean", 0.0, Mean()),
        (None, 0.5, Softmax(0.5)),
        ("min", 2.0, Softmax(2.0, Min())),
    ],
)
def test_budgets_of_version_0_1_0_are_read(aggregation, temperature, verifier):
    written = {
        "inference_steps": 2,
        "candidates": 8,
        "noise_scale": 0.5,
        "policy_conditioning": None,
        "critic_conditioning": 1,
        "q_aggregation": aggregation,
        "softmax_temperature": temperature,
    }
    expected = Budget(2, 8, noise_scale=0.5, critic_conditioning=1, verifier=verifier)
    assert budget_from_json(written, "here") == expected
    assert of_today(to_json(expected)) == to_json(expected)  # what is written today stays as it is


def test_what_a_budget_leaves_open_is_the_agents_own():
    assert in_force(None, Min()) == (Min(), 0.0)
    assert in_force(Mean(), Min()) == (Mean(), 0.0)
    assert in_force(Softmax(0.5), Min()) == (Min(), 0.5)
    assert in_force(Softmax(0.5, Mean()), Min()) == (Mean(), 0.5)


@pytest.mark.parametrize("name", ["Fql", "Ifql", "Cac", "Idql"])
def test_every_agent_that_chooses_by_q_heeds_a_verifier(name):
    """The third candidate has the highest mean and the lowest minimum; the second has the highest minimum."""
    agent = synthetic.tiny(AGENTS[name])
    budget = Budget(agent.actor.budgets.usual.inference_steps, 3)
    draws = 0.3 * agent.actor.draw_action(2, budget, key=jax.random.key(0))  # so that few actions are clipped
    networks = make_policy(agent, 3, 2, seed=0, scale=0.2)
    candidates = jax.jit(jax.vmap(lambda own: _act(agent, networks, own, 1)))(draws[:, None])
    assert len(np.unique(candidates, axis=0)) == 3

    class Critic:
        def __call__(self, observation, action):
            return Q[jnp.argmin(jnp.sum((candidates - action[None]) ** 2, axis=-1))]

    object.__setattr__(networks, "critic", Critic())
    verifiers, chosen = (Mean(), Min(), LowerBound(1.0), LowerBound(0.05)), [2, 1, 1, 2]
    actions = jax.jit(lambda draws: [_act(agent, networks, draws, 3, verifier) for verifier in verifiers])(draws)
    np.testing.assert_allclose(actions, np.asarray(candidates)[chosen], rtol=1e-5, atol=1e-6)


def _act(agent, networks, draws, candidates, verifier=None):
    steps = agent.actor.budgets.usual.inference_steps
    return agent.actor.act(networks, jnp.ones(3), draws, Budget(steps, candidates, verifier=verifier))


def test_the_lower_bound_has_a_gradient_also_where_all_heads_agree():
    """d/dq_i (mean - k deviation) = 1 / n - k (q_i - mean) / (n deviation); 1 / n where the deviation is 0."""
    gradient = jax.grad(lambda q: jnp.sum(lower_bound(q, 0.5)))(jnp.array([[1.0, 3.0], [2.0, 2.0]]))
    np.testing.assert_allclose(gradient, [[0.5 + 0.25, 0.5 - 0.25], [0.5, 0.5]], rtol=1e-6)
    assert float(lower_bound(jnp.array([1.0, 3.0]), 0.5)) == float(LowerBound(0.5)(jnp.array([1.0, 3.0]))) == 1.5
    assert float(lower_bound(jnp.array([7.0]), 2.0)) == 7.0
