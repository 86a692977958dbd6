"""Runners for control loops, by hand: chunks, smoothing, deadlines, and observations that are refused."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Normalisation, Policy
from sorl.policy import Exponential, LateObservation, OverlapAveraging, PolicyRunner, latency
from sorl.policy.deadline import Deadline

from .. import synthetic
from ..random_networks import make_policy


KEY = jax.random.key(0)


class Scripted:
    """A policy whose decisions are scripted chunks of one action dimension, and which refuses what is not finite."""

    observation_size = 1
    normalisation = Normalisation.identity(1, 1)

    def __init__(self, *decisions: list[float]):
        self.decisions, self.chunk, self.seen = list(decisions), len(decisions[0]), []

    def __call__(self, observation, *, key=None, **budget):
        self.seen.append(float(np.asarray(observation).ravel()[0]))
        actions = np.array(self.decisions.pop(0), np.float32)[:, None]
        actions = np.broadcast_to(actions, (*np.shape(observation)[:-1], *actions.shape))
        return actions if self.chunk > 1 else actions[..., 0, :]

    def outside(self, observation):
        if not np.isfinite(observation).all():
            raise ValueError("The observation is not finite.")
        return np.zeros(np.shape(observation), np.bool_)


class Clock:
    """Seconds that a test sets; each reading takes `step`."""

    def __init__(self):
        self.now, self.step = 100.0, 0.0

    def __call__(self):
        self.now += self.step
        return self.now


def run(runner: PolicyRunner, calls: int) -> list[float]:
    return [float(runner(np.array([float(call)]))[0]) for call in range(calls)]


def test_chunks_are_executed_in_order_without_smoothing():
    policy = Scripted([1, 2, 3], [4, 5, 6])
    assert run(PolicyRunner(policy, KEY, {}), 5) == [1, 2, 3, 4, 5]
    assert policy.seen == [0, 3]  # at the calls in between, observations are ignored


def test_exponential_smoothing_is_a_moving_average():
    runner = PolicyRunner(Scripted([8], [0], [4], [2], [6]), KEY, {}, Exponential(0.75))
    assert run(runner, 3) == [8, 6, 5.5]  # 0.75 * 8 + 0.25 * 0, then 0.75 * 6 + 0.25 * 4
    runner.reset()  # the next episode begins with the policy's own action
    action = runner(np.zeros(1))
    assert action.tolist() == [2]
    action[:] = 100  # which changes no later action
    assert run(runner, 1) == [3]


def test_exponential_smoothing_does_not_exceed_the_limits_of_an_action_by_rounding():
    limit = float(np.float32(-2.675421))
    assert set(run(PolicyRunner(Scripted(*[[limit]] * 100), KEY, {}, Exponential(0.999)), 100)) == {limit}


def test_exponential_smoothing_smooths_the_steps_of_chunks():
    assert run(PolicyRunner(Scripted([8, 4], [0, 0]), KEY, {}, Exponential(0.5)), 3) == [8, 6, 3]


def test_overlap_averaging_averages_what_the_last_decisions_gave():
    policy = Scripted([1, 2, 3], [4, 8, 6], [7, 8, 9], [0, 0, 0])
    runner = PolicyRunner(policy, KEY, {}, OverlapAveraging(math.log(2)))
    # Weights 1, 1/2, 1/4 from the oldest decision on: 1; (2 + 4/2) / 1.5; (3 + 8/2 + 7/4) / 1.75; the first is over.
    np.testing.assert_allclose(run(runner, 4), [1, 4 / 1.5, 8.75 / 1.75, (6 + 8 / 2 + 0) / 1.75], rtol=1e-6)
    assert runner.decisions == 4 and policy.seen == [0, 1, 2, 3]


def test_overlap_averaging_without_decay_is_the_mean_and_reset_drops_it():
    runner = PolicyRunner(Scripted([1, 2], [4, 8], [5, 6]), KEY, {}, OverlapAveraging(0.0))
    assert run(runner, 2) == [1, 3]
    runner.reset()
    assert run(runner, 1) == [5]


def test_smoothing_of_batches_keeps_their_shape():
    runner = PolicyRunner(Scripted([8], [0]), KEY, {}, Exponential(0.5))
    assert runner(np.zeros((2, 1))).tolist() == [[8], [8]]
    with pytest.raises(ValueError, match=r"shape \(3, 1\), .* batch of shape \(2,\); call reset"):
        runner(np.zeros((3, 1)))
    assert runner(np.zeros((2, 1))).tolist() == [[4], [4]]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Exponential(1.0), "weight of the smoothing is 1.0; give a number from 0"),
        (lambda: Exponential(-0.1), "weight of the smoothing is -0.1"),
        (lambda: OverlapAveraging(math.nan), "decay of the smoothing is nan"),
        (lambda: PolicyRunner(Scripted([1]), KEY, {}, OverlapAveraging()), "for policies that give action chunks"),
        (lambda: Deadline(0.0), "deadline is 0.0 ms; give a finite time above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_observation_that_is_not_finite_changes_nothing():
    runner = PolicyRunner(Scripted([1, 2], [3, 4]), KEY, {})
    assert run(runner, 1) == [1]
    for _ in range(2):
        with pytest.raises(ValueError, match="not finite"):
            runner(np.array([np.nan]))
    assert runner.decisions == 1
    assert run(runner, 2) == [2, 3]


def test_a_late_observation_is_refused_before_the_decision():
    clock = Clock()
    policy = Scripted([1], [2])
    runner = PolicyRunner(policy, KEY, {}, deadline=Deadline(20.0, 5.0, clock))
    assert runner(np.zeros(1), taken_at=100.0 - 0.014) == 1
    with pytest.raises(
        LateObservation, match=r"is 16 ms old and a decision takes 5 ms, beyond the deadline of 20 ms; "
    ):
        runner(np.zeros(1), taken_at=100.0 - 0.016)
    with pytest.raises(ValueError, match=r"taken at 101.0, which is not before now \(100.0\); give a reading of time"):
        runner(np.zeros(1), taken_at=101.0)
    assert runner.decisions == 1
    assert runner(np.zeros(1)) == 2  # without a time, the deadline counts from the call


def test_decisions_that_miss_the_deadline_are_counted():
    clock = Clock()
    runner = PolicyRunner(Scripted([1], [2], [3]), KEY, {}, deadline=Deadline(20.0, 0.0, clock))
    for clock.step in (0.01, 0.03, 0.01):  # each decision reads the clock at its beginning and its end
        runner(np.zeros(1))
    assert runner.deadline is not None and runner.deadline.missed == 1
    assert runner.report().endswith(
        "1 decision came after the deadline of 20 ms; the slowest took 30 ms from observation to action."
    )


def test_only_decisions_have_a_deadline():
    clock = Clock()
    runner = PolicyRunner(Scripted([1, 2], [3, 4]), KEY, {}, deadline=Deadline(20.0, 0.0, clock))
    runner(np.zeros(1))
    assert runner(np.zeros(1), taken_at=0.0) == 2  # the observation between decisions is ignored


def test_a_time_without_a_deadline_is_refused():
    with pytest.raises(ValueError, match="has no deadline; give deadline_ms"):
        PolicyRunner(Scripted([1]), KEY, {})(np.zeros(1), taken_at=0.0)


def test_the_runner_of_a_policy_chooses_the_budget_for_its_deadline(monkeypatch):
    agent = synthetic.agent()
    policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0), Normalisation.identity(3, 2))
    names: list[str] = []

    def costs(circumstances, decisions, **settings):
        names.extend(decisions)
        return {name: 10.0 * place for place, name in enumerate(decisions, 1)}  # 10 ms for each doubling of the steps

    monkeypatch.setattr(latency, "costs", costs)
    runner = policy.runner(key=KEY, deadline_ms=25.0, smoothing=Exponential(0.5))
    assert runner.deadline is not None
    assert (runner.deadline.milliseconds, runner.deadline.expected) == (25.0, 20.0)
    first = runner(jnp.zeros(3))
    np.testing.assert_array_equal(first, policy(jnp.zeros(3), key=jax.random.fold_in(KEY, 0), steps=2))
    # With a budget of its own, that alone is measured.
    names.clear()
    runner = policy.runner(key=KEY, deadline_ms=25.0, steps=1)
    assert len(names) == 1 and runner.deadline is not None and runner.deadline.expected == 10.0
    np.testing.assert_array_equal(runner(np.zeros(3)), policy(np.zeros(3), key=jax.random.fold_in(KEY, 0), steps=1))


def test_a_decision_that_cannot_meet_the_deadline_is_refused(monkeypatch):
    agent = synthetic.agent()
    policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0), Normalisation.identity(3, 2))
    monkeypatch.setattr(latency, "costs", lambda circumstances, decisions, **settings: dict.fromkeys(decisions, 10.0))
    planned = policy.for_latency(20.0)
    cases: list[tuple[Policy, dict[str, Any]]] = [(policy, {"steps": 2}), (planned, {})]
    for own, given in cases:
        with pytest.raises(ValueError, match=r"A decision at M\dN1 takes 10 ms at the 95th percentile here, bey"):
            own.runner(key=KEY, deadline_ms=9.0, **given)


def test_the_first_decision_with_a_deadline_compiles_nothing(caplog, monkeypatch):
    monkeypatch.setattr(latency, "costs", lambda circumstances, decisions, **settings: dict.fromkeys(decisions, 1.0))
    agent = synthetic.agent()
    policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=1), Normalisation.identity(3, 2))
    runner = policy.runner(key=KEY, deadline_ms=1e5, steps=2)
    assert (runner.decisions, runner.observations) == (0, 0)
    jax.clear_caches()
    runner.prepare()
    with caplog.at_level("WARNING", "jax"), jax.log_compiles():
        runner(np.zeros(3))
    assert not [record for record in caplog.records if "ompil" in record.getMessage()]
    assert (runner.decisions, runner.observations) == (1, 1)
