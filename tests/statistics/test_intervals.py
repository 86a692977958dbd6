"""Intervals against published and hand-computed values, and the headline number of a run."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sorl.statistics import intervals
from sorl.statistics.intervals import (
    bootstrap_interval,
    evaluation_rows,
    headline,
    paired_difference,
    student_interval,
    success_interval,
    summarise,
    table,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "episodes", "expected"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_equals_published_intervals(successes, episodes, expected):
    np.testing.assert_allclose(wilson_interval(successes, episodes), expected, atol=5e-5)


@given(episodes=st.integers(1, 500), data=st.data())
def test_wilson_solves_its_defining_equation(episodes, data):
    # Its ends are the probabilities that lie 1.96 of their own standard deviations from the observed rate.
    successes = data.draw(st.integers(0, episodes))
    rate = successes / episodes
    for end, outermost in zip(wilson_interval(successes, episodes), (0.0, 1.0), strict=True):
        if rate != outermost:
            assert abs(rate - end) == pytest.approx(1.959964 * (end * (1 - end) / episodes) ** 0.5, rel=1e-6)
        else:
            assert end == pytest.approx(outermost, abs=1e-12)


@pytest.mark.parametrize(("successes", "episodes"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_counts_that_do_not_fit(successes, episodes):
    with pytest.raises(ValueError, match="have no interval; give counts that fit"):
        wilson_interval(successes, episodes)


def test_bootstrap_of_two_seeds_spans_them():
    # The four equally likely resamples of {0.2, 0.6} have means 0.2, 0.4, 0.4, 0.6.
    assert bootstrap_interval(np.array([0.2, 0.6])) == pytest.approx((0.2, 0.6))
    assert bootstrap_interval(np.array([0.2, 0.6]), confidence=0.4) == pytest.approx((0.4, 0.4))


def test_bootstrap_approaches_the_normal_interval_of_many_seeds():
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    half = 1.96 * values.std() / 20
    expected = (values.mean() - half, values.mean() + half)
    np.testing.assert_allclose(bootstrap_interval(values), expected, atol=5e-4)


def test_students_interval_is_that_of_the_tables():
    # Standard error 1; the quantiles of t with 1 and 2 degrees of freedom are 12.706 and 4.303.
    assert student_interval(np.array([4.0, 6.0])) == pytest.approx((5 - 12.706, 5 + 12.706), abs=5e-4)
    three = np.array([5 - 3**0.5, 5.0, 5 + 3**0.5])
    assert student_interval(three) == pytest.approx((5 - 4.303, 5 + 4.303), abs=5e-4)
    assert student_interval(np.array([0.0, 2.0]), confidence=0.5) == pytest.approx((0, 2))  # Cauchy's quartiles


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_students_interval_of_few_seeds_has_the_mean_as_often_as_it_says_and_the_bootstrap_has_not(seeds):
    scores = np.random.default_rng(0).normal(0.5, 0.1, (2000, seeds))
    student, bootstrap = (
        np.array([interval(own) for own in scores]) for interval in (student_interval, coarse_bootstrap)
    )
    covered = [np.mean((ends[:, 0] <= 0.5) & (0.5 <= ends[:, 1])) for ends in (student, bootstrap)]
    assert covered[0] == pytest.approx(0.95, abs=0.015)
    assert covered[1] < {2: 0.55, 3: 0.8, 8: 0.92}[seeds]


def coarse_bootstrap(values):
    resampled = values[np.random.default_rng(0).integers(0, len(values), (400, len(values)))].mean(axis=1)
    return np.quantile(resampled, [0.025, 0.975])


def test_interval_is_over_episodes_for_one_seed_and_over_seeds_for_several():
    assert success_interval(np.array([81]), np.array([263])) == (81 / 263, *wilson_interval(81, 263), "wilson")
    apart = success_interval(np.array([19, 21, 20]), np.array([50, 50, 50]))
    assert apart == pytest.approx((0.4, *wilson_interval(60, 150), "student"))
    further = success_interval(np.array([15, 25, 20]), np.array([50, 50, 50]))
    assert further == pytest.approx((0.4, 0.4 - 4.303 * 0.1 / 3**0.5, 0.4 + 4.303 * 0.1 / 3**0.5, "student"), abs=1e-4)


def test_seeds_that_agree_or_differ_by_much_have_an_interval_of_possible_successes():
    assert success_interval(np.array([50, 50]), np.array([50, 50])) == (
        1.0,
        wilson_interval(100, 100)[0],
        1.0,
        "student",
    )
    assert success_interval(np.array([10, 30]), np.array([50, 50])) == (0.4, 0.0, 1.0, "student")


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
    assert footer == "95 % interval: Student's t over training seeds, bootstrap over episodes."


def test_one_row_without_success_makes_all_be_judged_by_the_return():
    judged, other = summarise([row(1, 0, 5), returned(1, 0, -3.0, -4.0, -2.0) | {"candidates": 8}])
    assert (judged["success"], judged["return"], judged["return_low"]) == (None, -100.0, None)
    assert (other["success"], other["return"], other["return_low"]) == (None, -3.0, -4.0)
    assert "- .. -" in table([judged, other])


def test_returns_are_read_from_the_metrics():
    figures = {"return": -5.0, "return_low": -6.0, "return_high": -4.0, "episode_length": 9.0}
    (found,) = evaluation_rows([{"step": 1, "seed": 7} | {f"evaluation/{k}/M1N1": x for k, x in figures.items()}], 10)
    assert (found["successes"], found["return"], found["return_low"], found["return_high"]) == (None, -5.0, -6.0, -4.0)


def test_the_bootstrap_in_blocks_is_the_bootstrap(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(intervals, "_BLOCK_VALUES", 50 * 999)
    assert bootstrap_interval(values) == whole


def test_evaluations_are_read_from_the_metrics_and_make_the_headline():
    metrics = [
        {"step": step, "seed": 7, "training/q_loss": 1.0}
        | {f"evaluation/{name}/M4N8": value for name, value in zip(FIGURES, (success, -10.0 * step, 5.0), strict=True)}
        for step, success in [(1, 1.0), (2, 0.2), (3, 0.4), (4, 0.6)]
    ]
    rows = evaluation_rows([{"step": 1, "seed": 7, "training/q_loss": 1.0}, *metrics], episodes=10)
    assert [(row["step"], row["training_seed"], row["successes"]) for row in rows] == [
        (1, 7, 10),
        (2, 7, 2),
        (3, 7, 4),
        (4, 7, 6),
    ]
    (found,) = headline(rows)
    assert (found["inference_steps"], found["candidates"], found["steps"]) == (4, 8, [2, 3, 4])
    assert (found["success"], found["return"], found["length"]) == (pytest.approx(0.4), -30.0, 5.0)
    assert table([found]).splitlines()[1].endswith(" -")


FIGURES = ("success", "return", "episode_length")


def test_paired_difference_is_over_episodes_for_one_seed_and_over_seeds_for_several():
    reference = np.array([[True, False, False, True]])
    # Episode by episode 0, 1, 1, 0.
    found = paired_difference(np.array([[True, True, True, True]]), reference)
    assert found == (0.5, *bootstrap_interval(np.array([0.0, 1.0, 1.0, 0.0])))
    assert (found.difference_low, found.difference_high) == (0.0, 1.0)
    # Seeds differ by 1/2 and -1/4: a standard error of 3/8 with one degree of freedom.
    both = np.array([[True, True, True, True], [True, False, False, False]])
    found = paired_difference(both, np.concatenate([reference, reference]))
    assert found == (0.125, -1.0, 1.0)
    found = paired_difference(100.0 * both, 100.0 * np.concatenate([reference, reference]))
    assert found == pytest.approx((12.5, 12.5 - 12.706 * 37.5, 12.5 + 12.706 * 37.5), abs=0.01)
    # Seeds that agree are not certain: their eight differences are 0, 1, 1, 0, twice.
    found = paired_difference(np.ones((2, 4), bool), np.concatenate([reference, reference]))
    assert found == (0.5, *bootstrap_interval(np.array([0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0])))


@given(st.integers(1, 4), st.integers(1, 6), st.randoms(use_true_random=False))
def test_paired_difference_of_a_budget_with_itself_is_nothing_and_reverses_with_its_sides(seeds, episodes, random):
    one, other = (np.array([[random.random() < 0.5 for _ in range(episodes)] for _ in range(seeds)]) for _ in range(2))
    assert paired_difference(one, one) == (0.0, 0.0, 0.0)
    there, back = paired_difference(one, other), paired_difference(other, one)
    assert there.difference == -back.difference == pytest.approx(one.mean() - other.mean())
    np.testing.assert_allclose((there.difference_low, there.difference_high), (-back[2], -back[1]), atol=1e-12)


def test_a_table_of_nothing_has_no_empty_halves():
    assert table([]) == "No evaluation was made."
