"""The headline number of a run, and the table of its evaluations."""

import pytest

from sorl.statistics.intervals import wilson_interval
from sorl.statistics.tables import headline, summarise, table


def row(step, seed, successes, inference_steps=4, **others):
    budget = {
        "inference_steps": inference_steps,
        "candidates": 1,
        "noise_scale": 1.0,
        "policy_conditioning": None,
        "critic_conditioning": None,
        "verifier": None,
    }
    counts = {"successes": successes, "episodes": 10, "return": -100.0, "length": 100.0, "steps_per_second": 1000.0}
    return {"step": step, "training_seed": seed} | budget | counts | others


def test_headline_is_the_mean_of_the_last_three_evaluations_not_the_best():
    rows = [row(step, 0, successes) for step, successes in [(400, 5), (100, 10), (200, 3), (300, 4)]]
    (found,) = headline(rows)
    assert found["steps"] == [200, 300, 400]
    assert found["success"] == 12 / 30
    # The three evaluations play the same ten episodes.
    assert (found["success_low"], found["success_high"]) == wilson_interval(4, 10)


def test_headline_treats_each_budget_and_each_seed_on_its_own():
    rows = [row(step, 0, 6) for step in (1, 2, 3, 4)] + [row(step, 1, 2) for step in (1, 2)]  # seed 1 stopped early
    rows += [row(4, seed, 9, inference_steps=1) for seed in (0, 1)]
    four, one = headline(rows)
    assert (four["inference_steps"], four["seeds"], four["steps"]) == (4, 2, [1, 2, 3, 4])
    assert four["success"] == pytest.approx((0.6 + 0.2) / 2)
    assert (four["success_low"], four["success_high"], four["interval"]) == (0.0, 1.0, "student")
    assert (one["inference_steps"], one["steps"], one["success"]) == (1, [4], 0.9)


def test_summary_takes_the_last_evaluation_alone_and_averages_the_rest_of_the_row():
    rows = [row(1, 0, 0), row(2, 0, 4, length=50.0), row(2, 1, 8, length=150.0)]
    (found,) = summarise(rows)
    assert found["steps"] == [2]
    assert found["success"] == pytest.approx(0.6)
    assert (found["return"], found["length"], found["steps_per_second"]) == (-100.0, 100.0, 1000.0)


def test_table_shows_budget_success_and_interval():
    title, line, footer = table(summarise([row(1, 0, 5)])).splitlines()
    low, high = wilson_interval(5, 10)
    assert title.split() == ["M^inf", "N", "success", "95", "%", "interval", "return", "length", "steps/s"]
    assert line.split() == ["4", "1", "0.500", f"{low:.3f}", "..", f"{high:.3f}", "-100.0", "100.0", "1000"]
    assert footer == "95 % interval: Wilson's over episodes."


def returned(step, seed, mean, low=None, high=None):
    """An evaluation in an environment that reports no success."""
    return row(step, seed, None) | {"return": mean, "return_low": low, "return_high": high}


def test_without_success_the_score_is_the_return_of_the_seeds_or_of_a_lone_seeds_evaluations():
    (lone,) = summarise(
        [returned(step, 0, -10.0 * step, -10.0 * step - 4, -10.0 * step + 2) for step in (1, 2)], last=2
    )
    assert (lone["success"], lone["success_low"], lone["success_high"]) == (None, None, None)
    assert (lone["return"], lone["return_low"], lone["return_high"]) == (-15.0, -19.0, -13.0)
    (several,) = summarise([returned(1, 0, -10.0, -90.0, 90.0), returned(1, 1, -30.0, -90.0, 90.0)])
    half = 12.706 * 10
    assert (several["return_low"], several["return_high"]) == pytest.approx((-20 - half, -20 + half), abs=5e-3)
    title, line, _, footer = table([lone, several]).splitlines()
    assert title.split() == ["M^inf", "N", "return", "95", "%", "interval", "length", "steps/s"]
    assert line.split() == ["4", "1", "-15", "-19", "..", "-13", "100.0", "1000"]
    student = "Student's t over training seeds (of success, at least Wilson's over episodes)"
    assert footer == f"95 % interval: {student}, bootstrap over episodes."


def test_one_row_without_success_makes_all_be_judged_by_the_return():
    judged, other = summarise([row(1, 0, 5), returned(1, 0, -3.0, -4.0, -2.0) | {"candidates": 8}])
    assert (judged["success"], judged["return"], judged["return_low"]) == (None, -100.0, None)
    assert (other["success"], other["return"], other["return_low"]) == (None, -3.0, -4.0)
    assert "- .. -" in table([judged, other])


def test_a_table_of_nothing_has_no_empty_halves():
    assert table([]) == "No evaluation was made."
