"""How the time of decisions is measured, by a made-up clock, kept, and used to choose a policy's budget."""

import itertools
import json
import math
import os
import stat
from pathlib import Path

import jax
import numpy as np
import pytest

from sorl import Budget, Normalisation, Policy, load_policy
from sorl.policy import __main__ as command, latency

from .. import synthetic
from ..random_networks import make_policy


class Clock:
    """A clock that only the test advances."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *milliseconds):
        """A decision that takes these times one after the other, over and over."""
        cycle = itertools.cycle(milliseconds)

        def decide():
            self.now += next(cycle) / 1000

        return decide


def test_the_first_call_of_each_decision_is_not_counted():
    clock = Clock()
    first = iter([10_000.0])

    def compiles():
        clock.now += next(first, 2.0) / 1000

    found = latency.measure({"constant": clock.takes(0.5), "compiles": compiles}, clock=clock)
    assert found == pytest.approx({"constant": 0.5, "compiles": 2.0})


def test_the_cost_is_the_95th_percentile():
    clock = Clock()
    # One call in ten is slow, so the 95th percentile is; one in fifty is not enough.
    often, seldom = [1.0] * 9 + [20.0], [1.0] * 49 + [20.0]
    found = latency.measure({"often": clock.takes(*often), "seldom": clock.takes(*seldom)}, clock=clock)
    assert found == pytest.approx({"often": 20.0, "seldom": 1.0})


@pytest.mark.parametrize("disturbed, expected", [({3}, 1.0), ({3, 7}, 50.0)])
def test_a_lone_disturbance_does_not_count_but_two_do(disturbed, expected):
    clock, made = Clock(), itertools.count(-2)  # two calls before the first round

    def decide():
        clock.now += (50.0 if next(made) // 31 in disturbed else 1.0) / 1000

    assert latency.measure({"one": decide}, clock=clock) == pytest.approx({"one": expected})


@pytest.mark.parametrize("milliseconds, calls", [(0.001, 30), (5.0, 10), (10_000.0, 3)])
def test_slow_decisions_are_made_less_often(milliseconds, calls):
    clock = Clock()
    made = []
    decide = clock.takes(milliseconds)

    def counted():
        made.append(1)
        decide()

    latency.measure({"one": counted}, clock=clock)
    assert len(made) == 2 + 10 * (1 + calls)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_known_is_not_measured_again(cache):
    clock = Clock()

    def never():
        raise AssertionError("measured again")

    circumstances = {"device": "a chip", "shapes": [[3, 2]]}
    assert latency.costs(circumstances, {"a": clock.takes(1.0)}, clock=clock) == pytest.approx({"a": 1.0})
    both = {"a": never, "b": clock.takes(3.0)}
    assert latency.costs(circumstances, both, clock=clock) == pytest.approx({"a": 1.0, "b": 3.0})
    assert latency.costs(circumstances, {"b": never}, clock=clock) == pytest.approx({"b": 3.0})
    # Elsewhere, or when asked to, it is measured.
    elsewhere = circumstances | {"device": "another"}
    assert latency.costs(elsewhere, {"a": clock.takes(2.0)}, clock=clock) == pytest.approx({"a": 2.0})
    again = latency.costs(circumstances, {"a": clock.takes(4.0)}, measure_again=True, clock=clock)
    assert again == pytest.approx({"a": 4.0})
    assert len(list((cache / "sorl" / "latency").iterdir())) == 2


def test_the_cache_is_private(cache):
    latency.costs({}, {"a": Clock().takes(1.0)}, clock=Clock())
    assert stat.S_IMODE(os.stat(cache / "sorl" / "latency").st_mode) == 0o700


WRONG_TIMES = ("3", '{"a": "fast"}', '{"a": -1}', '{"a": NaN}')


DAMAGED_CACHES = ("", "{", "[]", "{}", "[" * 100_000, *(f'{{"milliseconds": {x}}}' for x in WRONG_TIMES))


@pytest.mark.parametrize("content", DAMAGED_CACHES)
def test_a_damaged_cache_is_measured_again_and_that_is_said(cache, content):
    clock = Clock()
    path = latency.cache_path({})
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.warns(UserWarning, match="cannot be used .* measured again"):
        assert latency.costs({}, {"a": clock.takes(1.0)}, clock=clock) == pytest.approx({"a": 1.0})
    assert json.loads(path.read_text())["milliseconds"] == pytest.approx({"a": 1.0})


def test_a_cache_that_cannot_be_written_is_done_without_and_that_is_said(cache):
    cache.write_text("a file where a directory should be")
    clock = Clock()
    reason = rf"{cache}/sorl/latency cannot be made: not a directory; set XDG_CACHE_HOME to a directory of your own"
    with pytest.warns(
        UserWarning, match=rf"^The costs cannot be kept \({reason}\), so the next process measures again"
    ):
        assert latency.costs({}, {"a": clock.takes(1.0)}, clock=clock) == pytest.approx({"a": 1.0})


@pytest.fixture(scope="module")
def policy():
    agent = synthetic.agent(hidden_sizes=(4,), critic_hidden_sizes=(4,), discretization_steps=2)
    networks = make_policy(agent, 3, 2, seed=0)
    return Policy(agent.actor, networks, Normalisation.identity(3, 2))


@pytest.fixture
def made_up(cache, monkeypatch):
    """A tenth of a millisecond for each jump of each candidate; **returns** how many pairs each measurement had."""
    measured = []

    def measure(decisions, clock):
        measured.append(len(decisions))
        budgets = {name: json.loads(name) for name in decisions}
        return {name: 0.1 * budget["inference_steps"] * budget["candidates"] for name, budget in budgets.items()}

    monkeypatch.setattr(latency, "measure", measure)
    return measured


GRID_ROWS = [
    synthetic.score(1, 1, 0.3, 0.0),
    synthetic.score(2, 1, 0.6, 0.3),
    synthetic.score(2, 16, 0.7, 0.4),
    synthetic.score(1, 16, 0.1, -0.2),
]


def test_a_policy_with_scores_acts_at_the_best_pair_that_fits(policy, made_up):
    scored = policy.with_scores(GRID_ROWS)
    chosen = scored.for_latency(3.0)
    assert chosen.budget == Budget(2, 1) and chosen.plan.budget == chosen.budget
    assert chosen.plan.milliseconds == pytest.approx(0.2)
    assert [option.score for option in chosen.plan.options] == scored.scores
    assert scored.for_latency(4.0).budget == Budget(2, 16)
    assert made_up == [4]  # once
    observation, key = np.ones(3), jax.random.key(0)
    np.testing.assert_array_equal(chosen(observation, key=key), scored(observation, key=key, steps=2, candidates=1))
    assert scored.budget == Budget(2)  # unchanged
    with pytest.raises(ValueError, match=r"one candidate\), takes 0\.1 ms .* allow at least 0\.12 ms"):
        scored.for_latency(0.11)


def test_a_policy_without_scores_acts_at_the_most_trained_steps_that_fit(policy, made_up):
    chosen = policy.with_budget(Budget(1, 8)).for_latency(50.0, jax.devices()[0])
    assert chosen.budget == Budget(2, 1)
    assert "one candidate, because best of N" in chosen.plan.reason and len(chosen.plan.options) == 2
    assert policy.for_latency(0.2).budget == Budget(1, 1)


def test_the_budgets_other_fields_come_with_the_scores(policy, made_up):
    row = synthetic.score(2, 4) | {"noise_scale": 0.5}
    assert policy.with_scores([row]).for_latency(50.0).budget == Budget(2, 4, noise_scale=0.5)


def test_another_budget_or_other_scores_end_the_plan(policy, made_up):
    chosen = policy.for_latency(2.0)
    assert chosen.with_budget(Budget()).plan is None and chosen.with_scores([]).plan is None


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_that_are_no_time_are_refused(policy, limit):
    with pytest.raises(ValueError, match="give a finite time above 0"):
        policy.for_latency(limit)


def test_real_decisions_are_measured_end_to_end(policy, cache, monkeypatch):
    """No time is judged here: only that calls of the policy are what is measured."""
    monkeypatch.setattr(latency, "ROUNDS", 2)
    monkeypatch.setattr(latency, "CALLS", (1, 1))
    plan = policy.with_scores(GRID_ROWS[:2]).for_latency(60_000.0).plan
    assert plan.budget == Budget(2, 1)
    assert all(0 < option.milliseconds < 60_000 for option in plan.options)
    (kept,) = (cache / "sorl" / "latency").iterdir()
    content = json.loads(kept.read_text())
    assert content["circumstances"]["jax"] == jax.__version__
    assert list(content["milliseconds"].values()) == [option.milliseconds for option in plan.options]


def test_the_command_says_what_it_chose_and_writes_it(policy, made_up, tmp_path, capsys):
    policy.with_scores(GRID_ROWS).save(tmp_path / "policy.sorl")
    out = tmp_path / "fast.sorl"
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="limit is .* ms; give a finite time above 0"):
            command.Config(tmp_path / "policy.sorl", latency_ms=limit)
    config = command.Config(tmp_path / "policy.sorl", latency_ms=3.0, device="cpu", out=out, compilation_cache=False)
    command.main(config)
    printed = capsys.readouterr().out
    assert "3 observations, 2 actions, trained for 1, 2 steps, scores of 4 budgets; acts at M2N1" in printed
    assert "     2   16    3.200    0.700  0.600 .. 0.800        +0.400\n" in printed
    assert "M2N1 (2 steps, one candidate): 0.2 ms" in printed and f"Wrote {out}" in printed
    assert load_policy(out).budget == Budget(2, 1)
    assert load_policy(out).scores == policy.with_scores(GRID_ROWS).scores


def test_the_command_without_a_limit_describes_the_policy(policy, tmp_path, capsys):
    policy.save(tmp_path / "policy.sorl")
    command.main(command.Config(tmp_path / "policy.sorl"))
    assert capsys.readouterr().out == (
        "ShortcutActor (of unknown origin): 3 observations, 2 actions, trained for 1, 2 steps, scores of 0 budgets; "
        "acts at M2N1 by default.\n"
    )


def test_the_command_refuses_devices_that_are_not_there(policy, tmp_path):
    policy.save(tmp_path / "policy.sorl")
    with pytest.raises(ValueError, match="There is no device 'quantum' here"):
        command.main(
            command.Config(tmp_path / "policy.sorl", latency_ms=3.0, device="quantum", compilation_cache=False)
        )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "gpu"}, "--device gpu is where decisions are timed; give --latency-ms or --compare too"),
        ({"measure_again": True}, "--measure-again is about the times for a limit; give --latency-ms too"),
        ({"measure_again": True, "compare": True}, "--measure-again is about the times for a limit"),
    ],
)
def test_options_of_a_time_limit_are_refused_without_one(options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        command.Config(Path("policy.sorl"), **options)


def test_without_scores_the_command_has_no_columns_for_them(policy, made_up, tmp_path, capsys):
    policy.save(tmp_path / "policy.sorl")
    command.main(command.Config(tmp_path / "policy.sorl", latency_ms=3.0, compilation_cache=False))
    assert " M^inf    N   p95 ms\n" in capsys.readouterr().out
