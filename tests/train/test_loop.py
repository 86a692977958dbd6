"""A chunk of training: what its program does, and what it refuses."""

import inspect
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.train import hyperparameters, loop
from sorl.train.validation import run_validation

from .. import synthetic
from ..bits import arrays
from .chunks import BATCH, of_seed, train


def test_inside_another_jit_train_steps_trains():
    agent, dataset = synthetic.agent(), synthetic.dataset()
    settings = {"batch_size": BATCH, "log_interval": 5, "seed_mapping": "map"}

    def three(state, run):
        return run(agent, state, dataset, jnp.int32(3), **settings)

    state = loop.init(agent, dataset, (0,), batch_size=BATCH)
    with pytest.raises(ValueError, match="compiler_options"):
        jax.jit(lambda state: three(state, loop.run_chunk))(state)
    found = jax.jit(lambda state: three(state, loop.train_steps))(state)
    assert int(found.step) == 3
    # Not to the bit: with vectors of another width, sums are taken in another order.
    for one, other in zip(arrays(found.agent), arrays(train([3]).agent), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrong, found",
    [({"seed_mapping": "vmaps"}, "seed_mapping is 'vmaps'"), ({"log_interval": 0}, "log_interval 0; give map or vmap")],
)
def test_settings_of_no_program_are_refused(wrong, found):
    agent, dataset = synthetic.agent(), synthetic.dataset()
    state = loop.init(agent, dataset, (0,), batch_size=BATCH)
    settings = {"batch_size": BATCH, "log_interval": 5, "seed_mapping": "map"} | wrong
    with pytest.raises(ValueError, match=found):  # without the type checks, as a user has it
        inspect.unwrap(loop.train_steps)(agent, state, dataset, jnp.int32(3), **settings)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_program_for_an_accelerator_equals_that_for_a_cpu_up_to_rounding(seeds):
    agent, dataset = synthetic.agent(), synthetic.dataset()
    state = loop.init(agent, dataset, seeds, batch_size=BATCH)
    settings = {"batch_size": BATCH, "log_interval": 5, "seed_mapping": "vmap"}
    with jax.default_matmul_precision("highest"):
        found, expected = (
            jax.jit(partial(loop.train_steps, **settings, platform=platform))(agent, state, dataset, jnp.int32(2))
            for platform in ("cuda", "cpu")
        )
    for one, other in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_every_part_of_the_state_moves():
    before = loop.init(synthetic.agent(), synthetic.dataset(), (0,), batch_size=BATCH)
    moved = [not np.array_equal(a, b) for a, b in zip(arrays(before.agent), arrays(train([2]).agent), strict=True)]
    assert all(moved)


def test_members_without_a_difference_have_no_own_settings():
    assert hyperparameters.own_settings([synthetic.agent()] * 3) is None
    own = hyperparameters.own_settings([synthetic.agent(q_coefficient=value) for value in (1.0, 2.0)])
    assert [leaf.tolist() for leaf in jax.tree.leaves(own)] == [[1.0, 2.0]]


def test_vmapped_seeds_agree_with_lone_ones_after_one_update():
    grouped = train([1], seeds=(3, 0), seed_mapping="vmap")
    for index, seed in enumerate((3, 0)):
        lone = train([1], seeds=(seed,))
        for a, b in zip(arrays(of_seed(grouped.agent, index)), arrays(lone.agent), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1e-3, np.abs(b).max()))


def test_vmapped_seeds_keep_the_switch_a_branch():
    """With a switch turned into a select, every jump count of both losses would be computed."""
    dataset = synthetic.dataset()
    programs = {}
    for mapping in ("map", "vmap"):
        agent = synthetic.agent()
        state = loop.init(agent, dataset, (0, 1), batch_size=BATCH)
        traced = loop.run_chunk.trace(
            agent, state, dataset, jnp.int32(1), batch_size=BATCH, log_interval=5, seed_mapping=mapping
        )
        programs[mapping] = str(traced.jaxpr).count("cond[")
    # Two switches; under map also the one that skips bad seeds, which vmap may turn into a select.
    assert programs["vmap"] >= 2
    assert programs["map"] == programs["vmap"] + 1


def test_metric_sums_restart_at_each_multiple_of_the_log_interval():
    fifth, sixth = train([5]), train([6])
    lone_sixth = train([6], log_interval=1)
    assert fifth.metric_sums["critic_loss"] > 0
    np.testing.assert_array_equal(sixth.metric_sums["critic_loss"], lone_sixth.metric_sums["critic_loss"])


def test_the_first_bad_step_is_the_step_not_the_chunk():
    dataset = synthetic.dataset()
    dataset = eqx.tree_at(lambda d: d.rewards, dataset, dataset.rewards.at[3].set(jnp.inf))
    state = train([40], dataset=dataset)
    first = int(state.first_bad_step[0])
    assert 0 <= first < 40
    assert np.isfinite(np.asarray(train([first], dataset=dataset).metric_sums["critic_loss"])).all()
    assert int(train([first], dataset=dataset).first_bad_step[0]) == -1
    assert int(train([first + 1], dataset=dataset).first_bad_step[0]) == first


@pytest.mark.parametrize("updates", [0, 30])
def test_validation_losses_are_those_of_the_state(updates):
    agent, dataset = synthetic.agent(), synthetic.dataset()
    state = train([updates], seeds=(0, 1))
    losses = run_validation(agent, state, dataset, batch_size=BATCH)
    again = run_validation(agent, state, dataset, batch_size=BATCH)
    assert losses.keys() >= {"critic_loss", "flow_matching_loss", "self_consistency_loss", "q_loss"}
    assert all(np.array_equal(losses[name], again[name]) for name in losses)
    assert losses["flow_matching_loss"].shape == (2,)


def test_state_is_donated():
    agent, dataset = synthetic.agent(), synthetic.dataset()
    state = loop.init(agent, dataset, (0,), batch_size=BATCH)
    leaf = state.agent.field.mlp.layers[0].weight
    train([1], agent=agent, dataset=dataset, state=state)
    assert leaf.is_deleted()


@pytest.mark.parametrize(
    "metric, found", [(jnp.zeros(3), r"\[3\] and type float32"), (jnp.int32(1), r"\[\] and type int32")]
)
def test_a_metric_that_cannot_be_averaged_is_refused_at_the_start(monkeypatch, metric, found):
    monkeypatch.setattr(loop, "_update", lambda *_: (None, {"speed": metric}))
    with pytest.raises(ValueError, match=f"The metric speed of Sorl is an array of shape {found}; let update return"):
        loop.init(synthetic.agent(), synthetic.dataset(), (0,), batch_size=BATCH)
