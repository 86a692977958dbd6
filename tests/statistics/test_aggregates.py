"""Aggregates over tasks and seeds, against numbers computed by hand."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from sorl.statistics.aggregates import (
    Estimate,
    fewest_seeds,
    interquartile_mean,
    interval_text,
    mean_over_tasks,
    probability_of_improvement,
)
from sorl.statistics.intervals import student_interval, success_interval, wilson_interval


def test_the_interquartile_mean_leaves_a_quarter_out_at_either_end():
    # Eight scores of two tasks: 0 0.1 | 0.2 0.3 0.4 0.6 | 0.8 1.
    found = interquartile_mean([np.array([0.0, 0.4, 1.0, 0.2]), np.array([0.6, 0.1, 0.3, 0.8])])
    assert found.value == pytest.approx((0.2 + 0.3 + 0.4 + 0.6) / 4)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.3], 0.3), ([0.0, 0.3, 0.9], 0.4), ([0.0, 0.4, 0.5, 0.9], 0.45), ([0.0, 0.2, 0.4, 0.6, 1.0], 0.4)],
)
def test_a_quarter_is_rounded_down(scores, expected):
    assert interquartile_mean([np.array(scores)]).value == pytest.approx(expected)


def test_seeds_are_resampled_within_their_task():
    """Each task's seeds agree, so that nothing varies, though the tasks differ."""
    found = interquartile_mean([np.full(3, 0.1), np.full(3, 0.9)])
    assert found == pytest.approx((0.5, 0.5, 0.5))


def test_the_interval_of_two_seeds_is_that_of_their_four_resamples():
    # The mean of two draws from {0, 1} is 0, 1/2, 1/2 or 1: beyond 2.5 % at both ends.
    assert interquartile_mean([np.array([0.0, 1.0])]) == pytest.approx((0.5, 0.0, 1.0))


def test_the_mean_over_tasks_has_the_interval_of_welch():
    one, many = np.array([0.4, 0.45, 0.5]), 1_000_000
    assert mean_over_tasks([one], [many]) == pytest.approx((0.45, *student_interval(one)))
    # Two tasks that vary alike have twice the degrees of freedom, 4 (2.776), and 1/sqrt(2) of the error.
    half = 2.776 * 0.05 / 3**0.5 / 2**0.5
    assert mean_over_tasks([one, one + 0.2], [many] * 2) == pytest.approx((0.55, 0.55 - half, 0.55 + half), abs=1e-4)
    # A task without variation halves the error of the other and adds no freedom: 4.303 with 2.
    half = 4.303 * 0.05 / 3**0.5 / 2
    expected = (0.55, 0.55 - half, 0.55 + half)
    assert mean_over_tasks([one, np.full(3, 0.65)], [many] * 2) == pytest.approx(expected, abs=1e-4)


def test_the_mean_over_tasks_is_a_possible_success():
    assert mean_over_tasks([np.array([0.0, 1.0])], [100]) == (0.5, 0.0, 1.0)


def test_the_mean_over_tasks_of_seeds_that_agree_has_wilsons_interval():
    # One task: as the interval of one task, 52 successes in 100.
    seeds = np.array([26, 26]), np.array([50, 50])
    assert mean_over_tasks([np.array([0.52, 0.52])], [100]) == pytest.approx(success_interval(*seeds)[:3])
    # Two tasks of 50 and 150 episodes are as precise as 4 / (1 / 50 + 1 / 150) = 150 episodes of both: 75 successes.
    scores = [np.array([0.25, 0.25]), np.array([0.75])]
    assert mean_over_tasks(scores, [50, 150]) == pytest.approx((0.5, 0.4210, 0.5790), abs=1e-4)
    # Seeds that vary much have Student's interval, 12.706 standard errors, and those that hardly vary Wilson's.
    found = mean_over_tasks([np.array([0.51, 0.53])], [100])
    assert found == pytest.approx((0.52, 0.52 - 0.12706, 0.52 + 0.12706), abs=1e-4)
    found = mean_over_tasks([np.array([0.5199, 0.5201])], [100])
    assert found == pytest.approx((0.52, *wilson_interval(52, 100)))


def test_there_is_an_interval_only_where_every_task_has_several_seeds_and_it_has_a_width():
    one, two = [np.array([0.5])], [np.array([0.5, 0.5])]
    assert [fewest_seeds(*scores) for scores in ((two, two), (one,), (two, one), ([*two, *one],))] == [2, 1, 1, 1]
    assert [interval_text(Estimate(0.5, 0.25, 1.0), seeds) for seeds in (1, 2)] == ["-", "0.250 .. 1.000"]
    assert interval_text(interquartile_mean(two), 2) == "-"


def test_probability_of_improvement_counts_pairs_and_half_of_the_ties():
    first, second = [np.array([0.5, 0.9])], [np.array([0.5, 0.7, 0.1])]
    # 0.5 beats 0.1 and ties with 0.5: 1.5 of 3; 0.9 beats all: 3 of 3.
    found = probability_of_improvement(first, second)
    assert found.value == pytest.approx(4.5 / 6)
    assert found.low <= found.value <= found.high
    assert probability_of_improvement(second, first).value == pytest.approx(1.5 / 6)


def test_two_seeds_that_win_every_pair_do_not_make_the_first_certainly_better():
    first, second = [np.array([0.8, 0.9])], [np.array([0.5, 0.6])]
    # Wilson's interval of 2 successes in 2: 2 / (2 + z^2) = 2 / 5.8415 = 0.3424.
    assert probability_of_improvement(first, second) == pytest.approx((1.0, 0.3424, 1.0), abs=1e-4)
    assert probability_of_improvement(second, first) == pytest.approx((0.0, 0.0, 0.6576), abs=1e-4)
    # With ten tasks there are 20 such pairs: 20 / (20 + 3.8415) = 0.8389.
    assert probability_of_improvement(first * 10, second * 10).low == pytest.approx(0.8389, abs=1e-4)


def test_every_task_counts_the_same():
    first = [np.array([1.0]), np.array([0.0, 0.0])]
    second = [np.array([0.0]), np.array([0.5, 0.0])]
    assert probability_of_improvement(first, second).value == pytest.approx((1 + 0.25) / 2)


def test_other_numbers_of_tasks_are_refused():
    with pytest.raises(ValueError, match="There are 1 and 2 tasks; give both methods' scores on the same ones"):
        probability_of_improvement([np.array([1.0])], [np.array([1.0])] * 2)


scores = strategies.lists(
    strategies.lists(strategies.floats(0, 1), min_size=1, max_size=5).map(np.array), min_size=1, max_size=3
)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(scores)
def test_the_interval_lies_within_the_scores_and_says_the_same_twice(scores):
    found = interquartile_mean(scores)
    assert found == interquartile_mean(scores)
    lowest, highest = min(task.min() for task in scores), max(task.max() for task in scores)
    assert lowest - 1e-9 <= found.low <= found.high <= highest + 1e-9
    assert probability_of_improvement(scores, scores).value == pytest.approx(0.5)
