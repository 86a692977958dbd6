"""Chunks of training on made-up data."""

import jax
import jax.numpy as jnp

from sorl.train import loop

from .. import synthetic


BATCH = 16


def train(lengths, seeds=(0,), *, agent=None, dataset=None, seed_mapping="map", log_interval=5, state=None):
    """The state of `agent` after chunks of these `lengths`, from `state` or from the start."""
    agent, dataset = agent or synthetic.agent(), dataset or synthetic.dataset()
    state = state or loop.init(agent, dataset, seeds, batch_size=BATCH)
    for length in lengths:
        state = loop.run_chunk(
            agent,
            state,
            dataset,
            jnp.int32(length),
            batch_size=BATCH,
            log_interval=log_interval,
            seed_mapping=seed_mapping,
        )
    return state


def of_seed(tree, index: int):
    """One seed of a stacked tree, with its axis kept."""
    return jax.tree.map(lambda leaf: leaf[index : index + 1], tree)
