"""The arrays that decisions are computed from, and large batches, which are computed in blocks with the same bits."""

import jax
import numpy as np
import pytest

from sorl import Normalisation, Sorl
from sorl.agents import Budget
from sorl.policy import acting


@pytest.mark.parametrize("rows", [64, 75])
def test_a_large_batch_is_that_of_small_ones(monkeypatch, rows):
    monkeypatch.setattr(acting, "BLOCK_ROWS", 64)  # blocks of 16 decisions
    agent = Sorl(hidden_sizes=(16, 16), critic_hidden_sizes=(16, 16))
    networks = agent.policy(agent.init(3, 2, key=jax.random.key(0)))
    observations = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), rows)

    def decide(part):
        shown = observations[part], keys[part]
        return acting.decide(agent.actor, networks, Normalisation.identity(3, 2), *shown, Budget(2, 4))

    expected = np.concatenate([decide(slice(first, first + 25)) for first in range(0, rows, 25)])
    np.testing.assert_array_equal(decide(slice(None)), expected)
    assert len(np.unique(expected, axis=0)) > rows // 2  # some are clipped to the same corner


def test_matrices_are_transposed_and_stay_where_they_are():
    device = jax.devices()[0]
    free = jax.device_put(np.arange(6, dtype=np.float32).reshape(2, 3))
    bound, heads = jax.device_put(free, device), np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    units = Normalisation.identity(3, 2)
    arrays = acting.program_arrays({"a": free, "b": bound, "c": heads, "d": heads[0, 0]}, units)
    np.testing.assert_array_equal(arrays[0], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(arrays[2], heads.swapaxes(1, 2))
    np.testing.assert_array_equal(arrays[3], [0, 1, 2])
    assert (arrays[0].committed, arrays[1].committed, arrays[1].devices()) == (False, True, {device})
