"""What rewards allow, and when a run's values are warned of: every figure by hand."""

import math

import numpy as np
import pytest

from sorl.agents import AGENTS, Bc, Fql, Iql, Rebrac, Sorl, SorlPlus
from sorl.config.population import Varied, members
from sorl.train.value_range import Departure, ValueRange, ValueWatch, departures, value_range


@pytest.mark.parametrize(
    "rewards, discount, low, high",
    [
        ([-1.0, -0.5, -0.25], 0.75, -4.0, 0.0),
        ([0.5, 2.0], 0.5, 0.0, 4.0),
        ([-1.0, 3.0], 0.75, -4.0, 12.0),
        ([0.0, 0.0], 0.99, 0.0, 0.0),
        ([-2.0], 0.0, -2.0, 0.0),
        ([-1.0, 0.0], 1.0, -math.inf, 0.0),
        ([0.0, 1.0], 1.0, 0.0, math.inf),
    ],
)
def test_the_range_is_what_discounted_rewards_can_sum_to(rewards, discount, low, high):
    assert value_range(np.array(rewards, np.float32), discount)[:2] == (low, high)


def test_excess_is_the_distance_outside_as_a_share_of_the_width():
    allowed = ValueRange(-4.0, 12.0, 16.0)
    assert [allowed.excess(value) for value in (-4.0, 0.0, 12.0, -8.0, 20.0)] == [0.0, 0.0, 0.0, 0.25, 0.5]
    assert ValueRange(0.0, 0.0, 0.0).excess(-0.5) == 0.5
    without_discount = value_range(np.array([-1.0, 0.0]), 1.0)
    assert without_discount == (-math.inf, 0.0, 100.0)
    assert (without_discount.excess(-1e30), without_discount.excess(50.0)) == (0.0, 0.5)


def _watch(agent, rewards, earlier=()) -> ValueWatch:
    return ValueWatch(members(agent, (0, 7), ()), rewards, earlier)


def _rows(**values: float):
    return {0: {f"training/{name}": np.float32(value) for name, value in values.items()} | {"validation/q_mean": 1e9}}


def test_penalties_may_lower_the_values_of_an_agent_that_says_so():
    watch = _watch(Rebrac(discount=0.75), np.array([-25.0, -1.0], np.float32))
    rows = _rows(q_mean=-1e6)
    assert watch.check(10, rows) == [] and rows[0]["training/value_excess"] == 0.0
    (warning,) = watch.check(20, _rows(q_mean=50.0))
    assert "allow only -inf to 0" in warning


def test_pessimism_of_the_target_lowers_the_values_of_sorl_plus():
    """With r = -1 and a penalty of p at each step, the values tend to -(1 + p) / (1 - discount)."""
    for pessimism, warned in ((None, 1), (0.0, 1), (0.5, 0)):
        watch = _watch(SorlPlus(discount=0.75, target_pessimism=pessimism), np.array([-1.0], np.float32))
        assert len(watch.check(10, _rows(q_mean=-6.0))) == warned


def test_an_agent_may_log_no_value_and_lack_every_setting_of_the_remedies(monkeypatch):
    watch = _watch(Rebrac(discount=0.75), np.array([-1.0], np.float32))
    rows = {0: {"training/policy_loss": np.float32(1)}}
    assert watch.check(10, rows) == [] and "training/value_excess" not in rows[0]
    monkeypatch.setattr("sorl.train.value_range.REMEDIES", {"unknown": "lower", "late_learning_rate": "lower"})
    (warning,) = _watch(Sorl(late_learning_rate=None), np.array([-1.0], np.float32)).check(20, _rows(q_mean=5e9))
    assert warning.endswith("not to be trusted; try settings that keep the policy nearer to the data.")


def test_the_first_departure_of_each_seed_is_warned_of_once():
    watch = _watch(Sorl(q_coefficient=100.0, discount=0.75), np.array([-25.0, -1.0], np.float32))
    inside = _rows(q_mean=-30.0, target_q_mean=0.5, policy_q_mean=1.0)
    assert watch.check(10, inside) == [] and inside[0]["training/value_excess"] == 0.01
    rows = _rows(q_mean=2.0, target_q_mean=-1.0, policy_q_mean=9.5) | {7: inside[0]}
    assert watch.check(20, rows) == [
        "Seed 0: training/policy_q_mean is 9.5 at update 20, but the data's rewards allow only -100 to 0, so the "
        "critic is not to be trusted; try a lower --agent.q-coefficient (now 100)."
    ]
    assert rows[0]["training/value_excess"] == 0.095
    assert watch.check(30, _rows(q_mean=9.0)) == []
    assert watch.verdicts() == [
        "Seed 0 is not to be trusted: its values left the range that the data's rewards allow at update 20 and are "
        "outside it in the last row; try a lower --agent.q-coefficient (now 100)."
    ]
    assert watch.check(40, _rows(q_mean=-50.0)) == [] and watch.verdicts() == []


def test_each_member_is_compared_with_the_range_of_its_own_discount():
    population = members(Sorl(), (4,), (Varied("agent.discount", (0.5, 0.75)),))
    watch = ValueWatch(population, np.array([1.0], np.float32))
    rows = {number: {"training/q_mean": 3.0} for number in population}
    (warning,) = watch.check(10, rows)
    assert warning.startswith("Member 0 (agent.discount 0.5, seed 4): training/q_mean is 3 at update 10, but")
    assert [row["training/value_excess"] for row in rows.values()] == [0.5, 0.0]


def test_earlier_rows_of_a_run_are_not_warned_of_again():
    earlier = [{"step": 10, "seed": 0, "training/value_excess": 0.3}]
    watch = _watch(Sorl(discount=0.5), np.array([0.5], np.float32), earlier)
    assert watch.check(20, _rows(v_mean=-0.5)) == []
    (verdict,) = watch.verdicts()
    assert "at update 10" in verdict


def test_departures_tell_whether_the_last_row_is_outside():
    rows = [
        {"step": step, "seed": seed, "training/value_excess": excess}
        for step, seed, excess in [(1, 0, 0.0), (1, 5, 0.2), (2, 0, 0.011), (2, 5, 0.01), (3, 0, 2.0)]
    ]
    rows.append({"step": 4, "seed": 0, "evaluation/success/M4N1": 0.0})
    assert departures(rows) == {0: Departure(2, True), 5: Departure(1, False)}
    assert departures([{"step": 1, "seed": 0, "training/q_mean": 1e9}]) == {}  # of an earlier version


@pytest.mark.parametrize(
    "agent, remedy",
    [
        (Iql(expectile=0.9), "a lower --agent.expectile (now 0.9)"),
        (Fql(distillation_coefficient=10.0), "a higher --agent.distillation-coefficient (now 10)"),
    ],
)
def test_the_remedy_is_a_setting_of_the_agent(agent, remedy):
    (warning,) = _watch(agent, np.array([0.5, 0.25], np.float32)).check(5, _rows(q_mean=99.0))
    assert warning.endswith(f"so the critic is not to be trusted; try {remedy}.")


def test_where_all_rewards_are_small_larger_ones_are_the_remedy():
    """Training begins from values of a few tenths, whatever the rewards."""
    (warning,) = _watch(Sorl(discount=0.5), np.array([-0.01, 0.02], np.float32)).check(5, _rows(q_mean=0.3))
    assert warning.endswith("try rewards times 50 (the largest is 0.02), or a lower --agent.q-coefficient (now 100).")


def test_every_agent_with_values_has_a_discount_and_a_remedy():
    for name, agent in AGENTS.items():
        made = agent()
        assert hasattr(made, "discount") == (agent is not Bc), name
        if agent is not Bc:
            (warning,) = _watch(made, np.array([0.5], np.float32)).check(5, _rows(q_mean=99.0))
            assert "--agent." in warning
