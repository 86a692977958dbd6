"""Training: one stream per (seed, step), whatever the chunks, the neighbours, or the log interval."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.train import loop
from sorl.train.validation import validation_losses

from .. import synthetic


pytestmark = pytest.mark.compiled_as_shipped

BATCH = 16


def _train(lengths, seeds=(0,), *, agent=None, dataset=None, seed_mapping="map", log_interval=5, state=None):
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


def _equal(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(_arrays(one), _arrays(other), strict=True))


def _arrays(tree):
    return [np.asarray(_data(leaf)) for leaf in jax.tree.leaves(tree)]


def _data(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _slice(tree, index: int):
    """One seed of a stacked tree, with its axis kept."""
    return jax.tree.map(lambda leaf: leaf[index : index + 1], tree)


def test_chunk_lengths_change_nothing():
    assert _equal(_train([12]), _train([1, 7, 4]))


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
    for one, other in zip(_arrays(found.agent), _arrays(_train([3]).agent), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_same_seed_same_bits_and_other_seed_other_bits():
    assert _equal(_train([3]), _train([3]))
    assert not _equal(_train([3]).agent, _train([3], seeds=(1,)).agent)


def test_every_part_of_the_state_moves():
    before = loop.init(synthetic.agent(), synthetic.dataset(), (0,), batch_size=BATCH)
    moved = [not np.array_equal(a, b) for a, b in zip(_arrays(before.agent), _arrays(_train([2]).agent), strict=True)]
    assert all(moved)


def test_mapped_seeds_are_bit_equal_to_lone_ones():
    grouped = _train([6], seeds=(3, 0, 7))
    for index, seed in enumerate((3, 0, 7)):
        lone = _train([6], seeds=(seed,))
        assert _equal(_slice(grouped.agent, index), lone.agent)
        assert _equal(_slice(grouped.metric_sums, index), lone.metric_sums)


def test_mapped_members_are_bit_equal_to_lone_agents():
    """Fields that enter the losses, the optimiser, and the batches."""
    values = {"q_coefficient": (1.0, 30.0), "learning_rate": (1e-3, 3e-4), "discount": (0.9, 0.99)}
    agents = [synthetic.agent(**{name: own[index] for name, own in values.items()}) for index in range(2)]
    dataset, seeds, own = synthetic.dataset(), (5, 0), loop.own_settings(agents)
    state = loop.init(agents[0], dataset, seeds, own, batch_size=BATCH)
    settings = {"batch_size": BATCH, "log_interval": 5, "seed_mapping": "map"}
    state = loop.run_chunk(agents[0], state, dataset, jnp.int32(20), own, **settings)
    losses = validation_losses(agents[0], state, dataset, own, batch_size=BATCH)
    for index, (agent, seed) in enumerate(zip(agents, seeds, strict=True)):
        lone = _train([20], seeds=(seed,), agent=agent)
        assert _equal(_slice(state.agent, index), lone.agent)
        assert _equal(_slice(state.metric_sums, index), lone.metric_sums)
        assert _equal(_slice(losses, index), validation_losses(agent, lone, dataset, batch_size=BATCH))


def test_members_without_a_difference_have_no_own_settings():
    assert loop.own_settings([synthetic.agent()] * 3) is None
    own = loop.own_settings([synthetic.agent(q_coefficient=value) for value in (1.0, 2.0)])
    assert [leaf.tolist() for leaf in jax.tree.leaves(own)] == [[1.0, 2.0]]


def test_vmapped_seeds_agree_with_lone_ones_after_one_update():
    grouped = _train([1], seeds=(3, 0), seed_mapping="vmap")
    for index, seed in enumerate((3, 0)):
        lone = _train([1], seeds=(seed,))
        for a, b in zip(_arrays(_slice(grouped.agent, index)), _arrays(lone.agent), strict=True):
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
    fifth, sixth = _train([5]), _train([6])
    lone_sixth = _train([6], log_interval=1)
    assert fifth.metric_sums["critic_loss"] > 0
    np.testing.assert_array_equal(sixth.metric_sums["critic_loss"], lone_sixth.metric_sums["critic_loss"])


def test_a_seed_that_goes_bad_is_named_and_then_left_alone():
    agent, dataset = synthetic.agent(), synthetic.dataset()
    state = loop.init(agent, dataset, (0, 1), batch_size=BATCH)
    spoiled = state.agent.critic.heads.layers[0].bias.at[1].set(jnp.nan)
    state = eqx.tree_at(lambda s: s.agent.critic.heads.layers[0].bias, state, spoiled)
    state = _train([3], agent=agent, dataset=dataset, state=state)
    np.testing.assert_array_equal(state.first_bad_step, [-1, 0])
    before = _arrays(_slice(state.agent, 1))
    good = _arrays(_slice(state.agent, 0))
    state = _train([2], agent=agent, dataset=dataset, state=state)
    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(before, _arrays(_slice(state.agent, 1)), strict=True)
    )
    assert not all(np.array_equal(a, b) for a, b in zip(good, _arrays(_slice(state.agent, 0)), strict=True))
    assert _equal(_slice(state.agent, 0), _train([5], seeds=(0,)).agent)


def test_the_first_bad_step_is_the_step_not_the_chunk():
    dataset = synthetic.dataset()
    dataset = eqx.tree_at(lambda d: d.rewards, dataset, dataset.rewards.at[3].set(jnp.inf))
    state = _train([40], dataset=dataset)
    first = int(state.first_bad_step[0])
    assert 0 <= first < 40
    assert np.isfinite(np.asarray(_train([first], dataset=dataset).metric_sums["critic_loss"])).all()
    assert int(_train([first], dataset=dataset).first_bad_step[0]) == -1
    assert int(_train([first + 1], dataset=dataset).first_bad_step[0]) == first


@pytest.mark.parametrize("updates", [0, 30])
def test_validation_losses_are_those_of_the_state(updates):
    agent, dataset = synthetic.agent(), synthetic.dataset()
    state = _train([updates], seeds=(0, 1))
    losses = validation_losses(agent, state, dataset, batch_size=BATCH)
    again = validation_losses(agent, state, dataset, batch_size=BATCH)
    assert losses.keys() >= {"critic_loss", "flow_matching_loss", "self_consistency_loss", "q_loss"}
    assert all(np.array_equal(losses[name], again[name]) for name in losses)
    assert losses["flow_matching_loss"].shape == (2,)


def test_state_is_donated():
    agent, dataset = synthetic.agent(), synthetic.dataset()
    state = loop.init(agent, dataset, (0,), batch_size=BATCH)
    leaf = state.agent.field.mlp.layers[0].weight
    _train([1], agent=agent, dataset=dataset, state=state)
    assert leaf.is_deleted()


@pytest.mark.parametrize(
    "metric, found", [(jnp.zeros(3), r"\[3\] and type float32"), (jnp.int32(1), r"\[\] and type int32")]
)
def test_a_metric_that_cannot_be_averaged_is_refused_at_the_start(monkeypatch, metric, found):
    monkeypatch.setattr(loop, "_update", lambda *_: (None, {"speed": metric}))
    with pytest.raises(ValueError, match=f"The metric speed of Sorl is an array of shape {found}; let update return"):
        loop.init(synthetic.agent(), synthetic.dataset(), (0,), batch_size=BATCH)
