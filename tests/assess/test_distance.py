import numpy as np
import pytest

from sorl.assess import distance


def test_near_states_are_those_nearest_in_units_of_each_dimensions_deviation(monkeypatch):
    monkeypatch.setattr(distance, "NEIGHBOURS", 2)
    monkeypatch.setattr(distance, "_QUERIES", 1)
    # The second dimension varies a thousand times as much, and the third never.
    logged = np.array([[0.0, 0.0, 5.0], [1.0, 0.0, 5.0], [0.0, 1000.0, 5.0], [1.0, 1000.0, 5.0]], np.float32)
    near = distance.near_states(np.array([[0.1, 100.0, 5.0], [0.9, 950.0, 7.0]], np.float32), logged)
    # Beside the nearest corner, the one along the dimension in which the query is more to the middle.
    assert [sorted(row) for row in near.tolist()] == [[0, 1], [2, 3]]


def test_constant_dimensions_and_large_offsets_do_not_hide_near_states(monkeypatch):
    monkeypatch.setattr(distance, "NEIGHBOURS", 1)
    line = np.linspace(-1, 1, 1001, dtype=np.float32)
    # The deviation of many equal numbers in single precision is not 0, and squares of 1e5 have no digits for 1e-3.
    logged = np.stack([line, np.full_like(line, 0.1), 1e5 + 10 * line], axis=1)
    assert logged[:, 1].std() > 0
    places = np.arange(0, 1001, 50)
    assert distance.near_states(logged[places], logged)[:, 0].tolist() == places.tolist()


def test_the_distance_to_the_nearest_action_in_each_dimension():
    neighbours = np.array([[[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [0.5, -0.5]]])
    actions = np.array([[[0.1, 0.2], [1.0, 0.5]], [[0.5, -0.5], [0.5, -0.4]]])
    # Nearest: (0, 0) and (1, 1) for the first state, (0.5, -0.5) twice for the second.
    np.testing.assert_allclose(distance.neighbour_distance(actions, neighbours), [0.1 / 4, (0.2 + 0.5 + 0.1) / 4])


def test_the_share_outside_the_logged_range():
    logged = np.array([[-0.5, 0.0], [0.5, 0.0]], np.float32)
    actions = np.array([[[0.6, 0.0], [-0.5, 0.0]], [[0.50001, 0.1], [0.0, -0.1]]], np.float32)
    np.testing.assert_array_equal(distance.share_outside(actions, logged), [1 / 4, 1 / 2])


def test_the_mean_jerk_is_that_of_all_differences_and_of_no_others():
    cubic = np.arange(6.0)[:, None] ** 3  # three differences of 6
    bump = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 4.0]])  # one of (1 - 3, 4)
    assert distance.mean_jerk([cubic * np.ones((1, 2)), bump, np.zeros((3, 2))]) == pytest.approx(
        (3 * 6 * np.sqrt(2) + np.sqrt(20)) / 4
    )
    assert distance.mean_jerk([np.zeros((3, 2))]) == 0.0


def test_a_chunk_counts_for_its_actions():
    # Two steps of three dimensions.
    assert distance.per_action(np.array([1.0, 2.0, 3.0, 3.0, 4.0, 5.0]), 2) == (2.0, 3.0, 4.0)


def test_the_mean_energy_score_of_more_states_than_a_block():
    actions = np.tile(np.array([[[-1.0], [1.0]], [[3.0], [3.0]]], np.float32), (1000, 1, 1))
    logged = np.zeros((2000, 1), np.float32)
    # Scores 1 - 1 = 0 and 3 - 0.
    assert distance.mean_energy_score(actions, logged) == pytest.approx(1.5)
