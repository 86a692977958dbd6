"""What windows of a trajectory hold, at its ends, at time-outs and at terminations."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.data import load_logs
from sorl.data.loaded import to_device
from sorl.data.transitions import Dataset, Window


def _dataset(lengths, terminated=(), seed=None) -> Dataset:
    """Trajectories of so many transitions, each with a successor row; row i is seen as i, and acted on with i / 100.

    Rewards are 1, 2, 3, .. over all rows, or with a seed random; `terminated` are the rows with a mask of 0.
    """
    rows = sum(lengths) + len(lengths)
    is_start = np.concatenate([np.arange(length + 1) < length for length in lengths])
    number = np.arange(rows, dtype=np.float32)
    masks = np.ones(rows, np.float32)
    masks[list(terminated)] = 0
    rewards = number + 1 if seed is None else np.random.default_rng(seed).normal(size=rows)
    return to_device(number[:, None], number[:, None] / 100, rewards, masks, is_start)


@functools.partial(jax.jit, static_argnums=2)
def _take(dataset, indices, window, discount):
    return dataset.take(indices, window, discount)


@functools.partial(jax.jit, static_argnums=1)
def _sample(dataset, window, key):
    return dataset.sample(64, window, 0.9, key=key)


def _all(dataset: Dataset, window: Window, discount: float = 0.5):
    return _take(dataset, jnp.arange(len(dataset), dtype=jnp.int32), window, discount)


def test_n_step_returns_at_a_time_out():
    # Rows 0 1 2 and their successor 3; rows 4 5 and their successor 6. Rewards 1 2 3 . 5 6.
    batch = _all(_dataset([3, 2]), Window(n_step=2))
    assert batch.reward.tolist() == [1 + 0.5 * 2, 2 + 0.5 * 3, 3, 5 + 0.5 * 6, 6]
    # Where the log was cut, the window is, and bootstraps from what was seen last.
    assert batch.discount.tolist() == [0.25, 0.25, 0.5, 0.25, 0.5]
    assert batch.next_observation[:, 0].tolist() == [2, 3, 3, 6, 6]
    np.testing.assert_allclose(batch.next_action[:, 0], [0.02, 0.03, 0.03, 0.06, 0.06])
    assert batch.observation[:, 0].tolist() == [0, 1, 2, 4, 5]
    assert batch.valid is None


def test_a_termination_stops_the_rewards_and_the_bootstrap():
    # Row 2 terminates at the trajectory's end; row 5 within a log that goes on, as OGBench's do behind a success.
    batch = _all(_dataset([3, 4], terminated=[2, 5]), Window(n_step=3))
    assert batch.reward.tolist() == [1 + 1 + 0.75, 2 + 1.5, 3, 5 + 3, 6, 7 + 4, 8]
    assert batch.discount.tolist() == [0, 0, 0, 0, 0, 0.25, 0.5]


def test_a_window_longer_than_every_trajectory():
    batch = _all(_dataset([1, 2]), Window(n_step=50))
    assert batch.reward.tolist() == [1, 3 + 0.5 * 4, 4]
    assert batch.discount.tolist() == [0.5, 0.25, 0.5]
    assert batch.next_observation[:, 0].tolist() == [1, 4, 4]


def test_chunks_that_reach_beyond_the_end_are_not_valid():
    batch = _all(_dataset([4, 1], terminated=[3]), Window(chunk=3))
    assert batch.valid is not None
    assert batch.valid.tolist() == [1, 1, 0, 0, 0]
    chunks = [[0, 1, 2], [1, 2, 3], [2, 3, 3], [3, 3, 3], [5, 5, 5]]
    np.testing.assert_allclose(batch.action, np.array(chunks) / 100)
    assert batch.reward.tolist() == [1 + 1 + 0.75, 2 + 1.5 + 1, 3 + 2, 4, 6]
    assert batch.discount.tolist() == [0.125, 0, 0, 0, 0.5]
    assert batch.next_observation[:2, 0].tolist() == [3, 4]
    np.testing.assert_allclose(batch.next_action[:2], np.array([[3, 4, 4], [4, 4, 4]]) / 100)


def test_a_termination_within_a_chunk_leaves_it_valid_if_the_log_goes_on():
    batch = _all(_dataset([4], terminated=[1]), Window(chunk=3))
    assert batch.valid is not None
    assert batch.valid.tolist() == [1, 1, 0, 0]
    assert batch.reward.tolist() == [1 + 1, 2, 3 + 2, 4]
    assert batch.discount.tolist() == [0, 0, 0.25, 0.5]


@pytest.mark.parametrize("window, steps", [(Window(4, 2), 4), (Window(2, 4), 4), (Window(3, 1), 3)])
def test_no_return_ends_before_the_chunks_last_action(window, steps):
    batch = _all(_dataset([9]), window, 1.0)
    assert window.steps == steps
    assert batch.next_observation[:, 0].tolist() == [min(row + steps, 9) for row in range(9)]
    assert batch.action.shape == (9, window.chunk)


def _plain(dataset: Dataset, row: int, steps: int, discount: float) -> tuple[float, float, int]:
    """Reward, discount and last row of a window, step by step."""
    reward, weight = 0.0, 1.0
    starts, rewards, masks = (np.asarray(x).tolist() for x in (dataset.starts, dataset.rewards, dataset.masks))
    for _ in range(steps):
        if row not in starts:
            break
        reward += weight * rewards[row]
        weight *= discount * masks[row]
        row += 1
    return reward, weight, row


@pytest.mark.parametrize("window", [Window(4), Window(1, 3), Window(5, 2)])
@hypothesis.given(
    cuts=st.sets(st.integers(1, 11), min_size=3, max_size=3),
    ended=st.sets(st.integers(0, 15), max_size=6),
    discount=st.floats(0, 1, width=32),
)
@hypothesis.settings(deadline=None, max_examples=40)
def test_windows_equal_a_walk_along_the_trajectory(window, cuts, ended, discount):
    """Twelve transitions in four trajectories, so that each window is compiled once."""
    dataset = _dataset(np.diff([0, *sorted(cuts), 12]), ended, seed=0)
    batch = jax.tree.map(np.asarray, _all(dataset, window, discount))
    starts, actions = np.asarray(dataset.starts).tolist(), np.asarray(dataset.actions)[:, 0]
    for index, row in enumerate(starts):
        reward, weight, last = _plain(dataset, row, window.steps, discount)
        assert batch.reward[index] == pytest.approx(reward, rel=1e-5, abs=1e-6)
        assert batch.discount[index] == pytest.approx(weight, rel=1e-5, abs=1e-30)
        assert batch.next_observation[index, 0] == last
        end = next(after for after in range(row, 16) if after not in starts)
        logged = [min(row + i, end - 1) for i in range(window.chunk)]
        np.testing.assert_array_equal(batch.action[index], actions[logged])
        following = [min(last + i, end) for i in range(window.chunk)]
        np.testing.assert_array_equal(batch.next_action[index], actions[following])
        assert batch.valid is None if window.chunk == 1 else batch.valid[index] == (row + window.chunk <= end)


def test_one_step_is_the_special_case_bit_for_bit():
    dataset, discount = _dataset([5, 1, 7], [1, 6, 8], seed=1), jnp.float32(0.99)
    indices = jnp.arange(len(dataset), dtype=jnp.int32)
    one = _take(dataset, indices, Window(), discount)
    np.testing.assert_array_equal(one.reward, dataset.rewards[dataset.starts])
    np.testing.assert_array_equal(one.discount, discount * dataset.masks[dataset.starts])
    np.testing.assert_array_equal(one.next_action, dataset.actions[dataset.starts + 1])
    # The general case, of windows that the ends of their trajectories cut to one step.
    alone = _dataset([1] * 6, [0, 6, 8], seed=1)
    pairs = (jax.tree.leaves(_all(alone, window, 0.99)) for window in (Window(), Window(3)))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_windows_of_any_length_begin_at_the_same_rows():
    dataset, key = _dataset([5, 1, 7]), jax.random.key(3)
    one, five = (_sample(dataset, window, key) for window in (Window(), Window(5, 3)))
    np.testing.assert_array_equal(one.observation, five.observation)


def test_own_logs_without_a_last_successor_are_cut_before_it(tmp_path):
    """Three steps and a termination, then three and a time-out, whose last step has no known successor."""
    ends = np.array([0, 0, 1, 0, 0, 0])
    number = np.arange(6.0)
    np.savez(
        tmp_path / "log.npz",
        observations=number[:, None],
        actions=number[:, None],
        rewards=np.array([1.0, 2, 3, 4, 5, 6]),
        terminals=ends,
        timeouts=np.array([0, 0, 0, 0, 0, 1]),
    )
    data = load_logs(tmp_path / "log.npz", validation_fraction=0.0)
    batch = _all(data.train, Window(n_step=2, chunk=2))
    assert batch.reward.tolist() == [2, 3.5, 3, 6.5, 5]
    assert batch.discount.tolist() == [0.25, 0, 0, 0.25, 0.5]
    assert batch.valid is not None
    assert batch.valid.tolist() == [1, 1, 0, 1, 0]
    units = data.normalisation
    seen = batch.next_observation * units.observation_scale[None] + units.observation_mean[None]
    np.testing.assert_allclose(seen[[0, 3, 4], 0], [2, 5, 5], atol=1e-5)


@pytest.mark.parametrize("changes, sentence", [({"n_step": 0}, "n_step is 0"), ({"chunk": -1}, "chunk is -1")])
def test_a_window_without_a_step_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=f"{sentence}; give a whole number >= 1"):
        Window(**changes)
