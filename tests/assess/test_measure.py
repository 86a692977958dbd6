"""An assessment of a policy that gives several actions at once."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import Budget
from sorl.assess.fitted_q import FitOptions
from sorl.assess.measure import assess
from sorl.assess.subject import Subject
from sorl.data.loaded import LoadedData

from .. import synthetic
from .linear import linear_policy


def test_a_chunk_is_executed_in_order_and_measured_for_each_action():
    data = synthetic.dataset(trajectories=4, length=20, observation_size=2, action_size=1)
    # Each decision is the action 0.1 and then 0.3, in every state: a sequence 0.1, 0.3, 0.1, 0.3, ...
    data = dataclasses.replace(data, observations=jnp.asarray(np.ones((80, 2)), jnp.float32))
    policy = linear_policy([[0.1, 0.0], [0.3, 0.0]], chunk=2)
    subject = Subject(policy, LoadedData(data, data, policy.normalisation, {}), data, 0.9, "as given")
    found = assess(subject, (Budget(1),), FitOptions(updates=5, hidden_sizes=(8,), batch_size=8), samples=1)
    (one,) = found.budgets
    # The third difference of the sequence is 4 times the step of 0.2, and that of the logs is theirs.
    assert one.jerk == pytest.approx(0.8, rel=1e-5)
    logged = np.asarray(data.actions)[np.asarray(data.starts)].reshape(4, 19)
    assert found.behaviour.jerk == pytest.approx(np.abs(np.diff(logged, n=3, axis=1)).mean(), rel=1e-5)
    assert len(one.neighbour_distance) == len(found.behaviour.neighbour_distance) == len(one.outside) == 1
    assert found.data.held_out_episodes == 4 and one.own_value is None


def test_only_whole_decisions_judge_a_policy_of_chunks():
    data = synthetic.dataset(trajectories=2, length=4, observation_size=2, action_size=1)
    data = dataclasses.replace(data, starts=data.starts[2:])  # an episode of one transition, and one of three
    policy = linear_policy(np.zeros((2, 2)), chunk=2)
    subject = Subject(policy, LoadedData(data, data, policy.normalisation, {}), data, 0.9, "as given")
    found = assess(subject, (Budget(1),), FitOptions(updates=5, hidden_sizes=(8,), batch_size=8), samples=1)
    # The decisions from the first two transitions of the longer episode are whole.
    assert (found.data.held_out_episodes, found.data.held_out_states, found.data.chunk) == (1, 2, 2)
    logged = np.asarray(data.actions)[np.asarray(data.starts)[1] + np.arange(3), 0]
    scores = [np.hypot(*logged[i : i + 2]) for i in range(2)]  # of the action 0, always
    assert found.budgets[0].energy_score == pytest.approx(np.mean(scores), rel=1e-5)


def test_an_action_that_is_constant_in_the_logs_counts_as_that_constant():
    data = synthetic.dataset(trajectories=4, length=20, observation_size=2, action_size=2)
    data = dataclasses.replace(data, actions=jnp.asarray(np.asarray(data.actions) * [1, 0], jnp.float32))
    found = []
    for gain in (0.7, 0.0):
        policy = linear_policy([[0.1, 0.0], [gain, 0.0]])
        units = dataclasses.replace(
            policy.normalisation, action_low=jnp.array([-1.0, 3]), action_high=jnp.array([1.0, 3])
        )
        policy = dataclasses.replace(policy, normalisation=units)
        subject = Subject(policy, LoadedData(data, data, units, {}), data, 0.9, "as given")
        options = FitOptions(updates=5, hidden_sizes=(8,), batch_size=8)
        found.append(assess(subject, (Budget(1),), options, samples=1).budgets[0])
    assert found[0] == found[1] and found[0].outside[1] == found[0].neighbour_distance[1] == 0


def test_held_out_episodes_shorter_than_a_decision_are_refused():
    data = synthetic.dataset(trajectories=2, length=3, observation_size=2, action_size=1)
    policy = linear_policy(np.zeros((3, 2)), chunk=3)
    subject = Subject(policy, LoadedData(data, data, policy.normalisation, {}), data, 0.9, "as given")
    with pytest.raises(ValueError, match="held-out episode has 2 transitions, and a decision of the policy has 3"):
        assess(subject, (Budget(1),), FitOptions(updates=1))


def test_judged_states_that_all_end_within_a_decision_are_refused_before_the_fit():
    data = synthetic.dataset(trajectories=2, length=3, observation_size=2, action_size=1)
    data = dataclasses.replace(data, starts=data.starts[1:])  # one transition, and then two
    policy = linear_policy(np.zeros((2, 2)), chunk=2)
    subject = Subject(policy, LoadedData(data, data, policy.normalisation, {}), data, 0.9, "as given")
    with pytest.raises(ValueError, match="None of the 1 judged states is followed by the 2 actions of a decision"):
        assess(subject, (Budget(1),), FitOptions(updates=1), states=1)
