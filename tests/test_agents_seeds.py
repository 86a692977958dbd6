"""Every agent's training: a seed decides every bit, alone or among others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import training
from sorl.agents import AGENTS

from . import synthetic


pytestmark = pytest.mark.slow

BATCH = 8
every_agent = pytest.mark.parametrize("name", sorted(AGENTS))


def _train(name, updates, seeds=(0,), *, seed_mapping: training.SeedMapping = "map"):
    agent, dataset = synthetic.tiny(AGENTS[name]), synthetic.dataset()
    state = training.init(agent, dataset, seeds, batch_size=BATCH)
    for count in updates:
        state = training.run_chunk(
            agent, state, dataset, jnp.int32(count), batch_size=BATCH, log_interval=5, seed_mapping=seed_mapping
        )
    return state


def _arrays(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _of_seed(state, index) -> list[np.ndarray]:
    return [leaf[index] for leaf in _arrays((state.agent, state.metric_sums))]


def _same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@every_agent
def test_a_seed_decides_every_bit_alone_or_among_others(name):
    grouped = _train(name, [3], seeds=(3, 0))
    for index, seed in enumerate((3, 0)):
        lone = _train(name, [3], seeds=(seed,))
        assert _same(_of_seed(grouped, index), _of_seed(lone, 0))
        assert _same(_arrays(lone.agent), _arrays(_train(name, [1, 2], seeds=(seed,)).agent))  # and whatever the chunks
    assert not _same(_of_seed(grouped, 0), _of_seed(grouped, 1))
    assert np.all(grouped.first_bad_step == -1)


@every_agent
def test_vmapped_seeds_agree_with_lone_ones_after_one_update(name):
    grouped = _train(name, [1], seeds=(3, 0), seed_mapping="vmap")
    for index, seed in enumerate((3, 0)):
        lone = _train(name, [1], seeds=(seed,))
        for a, b in zip(_of_seed(grouped, index), _of_seed(lone, 0), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1e-3, np.abs(b).max()))
