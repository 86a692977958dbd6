import numpy as np
import pytest

from sorl.statistics.ranks import rank_correlation, ranks


def test_equal_values_share_the_mean_of_their_ranks():
    np.testing.assert_array_equal(ranks(np.array([3.0, -1.0, 3.0, 7.0, 3.0])), [3.0, 1.0, 3.0, 5.0, 3.0])


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ([1, 2, 3, 4], [10, 20, 300, 4000], 1.0),  # any increasing map
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 1 - 6 * 4 / (5 * 24)),  # 1 - 6 sum d^2 / (n (n^2 - 1))
        # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
        ([0, 1, 1, 2], [0, 1, 2, 3], 4.5 / np.sqrt(4.5 * 5)),
    ],
)
def test_spearmans_correlation_by_hand(one, other, expected):
    assert rank_correlation(np.array(one), np.array(other)) == pytest.approx(expected)
    assert rank_correlation(np.array(other), np.array(one)) == pytest.approx(expected)


def test_a_constant_has_no_correlation():
    assert rank_correlation(np.ones(4), np.arange(4)) is None
