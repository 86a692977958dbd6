import numpy as np
import pytest

from sorl.assess.critic_sanity import calibrate


def test_a_critic_that_is_two_too_high_and_whose_heads_differ_by_one():
    returned = np.arange(20.0)
    predicted = np.stack([returned + 1.5, returned + 2.5], axis=1)
    found = calibrate("own, M1N1", predicted, returned)
    assert (found.critic, found.rank_correlation, found.bias, found.error) == ("own, M1N1", 1.0, 2.0, 2.0)
    assert found.disagreement == 0.5
    assert [(one.predicted, one.returned, one.states) for one in found.bins[:2]] == [(2.5, 0.5, 2), (4.5, 2.5, 2)]
    assert len(found.bins) == 10


def test_a_critic_that_orders_states_the_wrong_way_round():
    found = calibrate("x", np.array([[3.0], [2.0], [1.0]]), np.array([1.0, 2.0, 3.0]))
    assert (found.rank_correlation, found.bias) == (-1.0, 0.0) and found.error == pytest.approx(4 / 3)
    assert calibrate("x", np.ones((3, 1)), np.arange(3.0)).rank_correlation is None
