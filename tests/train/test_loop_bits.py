"""Training has one stream per (seed, step), to the bit, whatever the chunks, the neighbours, or the log interval."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.train import hyperparameters, loop
from sorl.train.validation import run_validation

from .. import synthetic
from ..bits import arrays, equal
from .chunks import BATCH, of_seed, train


pytestmark = pytest.mark.compiled_as_shipped

AGENT = synthetic.agent(discretization_steps=2, backprop_steps=1)
"""Without the branches of other jump counts, each of which takes as long to compile."""


def test_chunk_lengths_change_nothing():
    assert equal(train([12], agent=AGENT), train([1, 7, 4], agent=AGENT))


def test_same_seed_same_bits_and_other_seed_other_bits():
    assert equal(train([3], agent=AGENT), train([3], agent=AGENT))
    assert not equal(train([3], agent=AGENT).agent, train([3], seeds=(1,), agent=AGENT).agent)


def test_mapped_seeds_are_bit_equal_to_lone_ones():
    grouped = train([6], seeds=(3, 0), agent=AGENT)
    for index, seed in enumerate((3, 0)):
        lone = train([6], seeds=(seed,), agent=AGENT)
        assert equal(of_seed(grouped.agent, index), lone.agent)
        assert equal(of_seed(grouped.metric_sums, index), lone.metric_sums)


def test_mapped_members_are_bit_equal_to_lone_agents():
    """Fields that enter the losses, the optimiser, and the batches."""
    values = {"q_coefficient": (1.0, 30.0), "learning_rate": (1e-3, 3e-4), "discount": (0.9, 0.99)}
    agents = [dataclasses.replace(AGENT, **{name: own[index] for name, own in values.items()}) for index in range(2)]
    dataset, seeds, own = synthetic.dataset(), (5, 0), hyperparameters.own_settings(agents)
    state = loop.init(agents[0], dataset, seeds, own, batch_size=BATCH)
    settings = {"batch_size": BATCH, "log_interval": 5, "seed_mapping": "map"}
    state = loop.run_chunk(agents[0], state, dataset, jnp.int32(20), own, **settings)
    losses = run_validation(agents[0], state, dataset, own, batch_size=BATCH)
    for index, (agent, seed) in enumerate(zip(agents, seeds, strict=True)):
        lone = train([20], seeds=(seed,), agent=agent)
        assert equal(of_seed(state.agent, index), lone.agent)
        assert equal(of_seed(state.metric_sums, index), lone.metric_sums)
        assert equal(of_seed(losses, index), run_validation(agent, lone, dataset, batch_size=BATCH))


def test_a_seed_that_goes_bad_is_named_and_then_left_alone():
    agent, dataset = AGENT, synthetic.dataset()
    state = loop.init(agent, dataset, (0, 1), batch_size=BATCH)
    spoiled = state.agent.critic.heads.layers[0].bias.at[1].set(jnp.nan)
    state = eqx.tree_at(lambda s: s.agent.critic.heads.layers[0].bias, state, spoiled)
    state = train([3], agent=agent, dataset=dataset, state=state)
    np.testing.assert_array_equal(state.first_bad_step, [-1, 0])
    before = arrays(of_seed(state.agent, 1))
    good = arrays(of_seed(state.agent, 0))
    state = train([2], agent=agent, dataset=dataset, state=state)
    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(before, arrays(of_seed(state.agent, 1)), strict=True)
    )
    assert not equal(good, of_seed(state.agent, 0))
    assert equal(of_seed(state.agent, 0), train([5], seeds=(0,), agent=agent).agent)
