import jax.numpy as jnp
import numpy as np
import pytest

from sorl.assess.trajectories import Trajectories, returns_to_go, spread_out, value_scale
from sorl.data.transitions import Dataset


def dataset(rewards, masks, starts):
    rows = len(rewards)
    return Dataset(
        observations=jnp.zeros((rows, 1)),
        actions=jnp.zeros((rows, 1)),
        rewards=jnp.asarray(rewards, jnp.float32),
        masks=jnp.asarray(masks, jnp.float32),
        starts=jnp.asarray(starts, jnp.int32),
    )


# Three steps cut by a time-out; two steps of which the second terminates; three of which the first terminates, although
# the log goes on. The last row of each is only a successor.
DATA = dataset(
    [1, 2, 4, 0] + [8, 16, 0] + [1, 2, 4, 0],
    [1, 1, 1, 1] + [1, 0, 1] + [0, 1, 1, 1],
    [0, 1, 2] + [4, 5] + [7, 8, 9],
)


def test_a_gap_between_rows_ends_a_trajectory():
    found = Trajectories.of(DATA)
    assert found.first.tolist() == [0, 3, 5] and found.last.tolist() == [2, 4, 7]
    assert found.owner.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert found.rewards.tolist() == [1, 2, 4, 8, 16, 1, 2, 4]


def test_a_termination_ends_a_return_and_a_time_out_leaves_a_rest():
    returns = returns_to_go(Trajectories.of(DATA), 0.5)
    np.testing.assert_array_equal(returns.known, [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16, 1, 2 + 2, 4])
    np.testing.assert_array_equal(returns.beyond, [1 / 8, 1 / 4, 1 / 2, 0, 0, 0, 1 / 4, 1 / 2])
    np.testing.assert_array_equal(returns.filled(8.0), [4, 6, 8, 16, 16, 1, 6, 8])


def test_the_scale_of_values():
    scale = value_scale(Trajectories.of(DATA), 0.5)
    # The mean reward, 4.75, for ever is 9.5 beyond a time-out.
    returns = np.array([3 + 9.5 / 8, 4 + 9.5 / 4, 4 + 9.5 / 2, 16, 16, 1, 4 + 9.5 / 4, 4 + 9.5 / 2])
    assert scale.centre == pytest.approx(returns.mean()) and scale.scale == pytest.approx(returns.std())
    assert (scale.low, scale.high) == (0.0, 32.0)  # 16 at each step
    low, high = scale.limits
    assert low * scale.scale == -scale.centre and high * scale.scale == pytest.approx(32 - scale.centre)


@pytest.mark.parametrize("reward, scale", [(0.0, 1.0), (-1.0, 2.0)])
def test_rewards_that_never_vary_have_a_scale(reward, scale):
    data = dataset([reward] * 4, [1] * 4, [0, 1, 2])
    assert value_scale(Trajectories.of(data), 0.5).scale == pytest.approx(scale)


def test_without_a_discount_no_limit_is_known():
    assert value_scale(Trajectories.of(DATA), 1.0)[2:] == (0.0, np.inf)


def test_numbers_are_spread_evenly():
    assert spread_out(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread_out(9, 3).tolist() == [0, 4, 8]
