"""Intervals against published and hand-computed values."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sorl.statistics import intervals
from sorl.statistics.intervals import (
    bootstrap_interval,
    paired_difference,
    student_interval,
    success_interval,
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


def test_the_bootstrap_in_blocks_is_the_bootstrap(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(intervals, "_BLOCK_VALUES", 50 * 999)
    assert bootstrap_interval(values) == whole


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
