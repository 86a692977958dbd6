"""Discounted sums along trajectories, by hand."""

import numpy as np

from sorl.data.returns import discounted_sums


REWARDS = np.array([1.0, 2.0, 4.0, 8.0])
DISCOUNTS = np.array([0.5, 0.0, 0.5, 0.5])  # the second row terminated its episode
LAST, LENGTHS = np.array([1, 3]), np.array([2, 2])


def test_sums_end_with_a_termination_or_with_what_follows_the_trajectory():
    np.testing.assert_array_equal(discounted_sums(REWARDS, DISCOUNTS, LAST, LENGTHS), [2, 2, 8, 8])
    np.testing.assert_array_equal(discounted_sums(REWARDS, DISCOUNTS, LAST, LENGTHS, after=4.0), [2, 2, 9, 10])
