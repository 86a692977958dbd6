"""Checkpoints come back bit for bit, and the latest and the best are kept."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sorl.train.checkpoints import CheckpointError, Checkpoints

from .states import a_state, bits


@contextmanager
def x64() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def test_a_state_comes_back_bit_for_bit(tmp_path):
    state = a_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(a_state(seed=1))
    assert bits(restored) == bits(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    assert jnp.array_equal(jax.random.normal(restored.key[1]), jax.random.normal(state.key[1]))


def test_the_template_may_be_shapes_and_types_only(tmp_path):
    state = a_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
        assert bits(checkpoints.restore(jax.eval_shape(a_state), 3)) == bits(state)


def test_double_precision_comes_back(tmp_path):
    with x64():
        state = {"weight": jnp.array([1 / 3, np.pi]), "count": jnp.array(2**40)}
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, state)
            restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
    assert {name: str(leaf.dtype) for name, leaf in restored.items()} == {"weight": "float64", "count": "int64"}
    assert bits(restored) == bits(state)


def test_numpy_comes_back_as_numpy(tmp_path):
    state = {"sums": np.array([1 / 3, 2**0.5]), "count": np.array(2**40)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        restored = checkpoints.restore(jax.tree.map(np.zeros_like, state))
    assert all(isinstance(leaf, np.ndarray) for leaf in restored.values())
    assert bits(restored) == bits(state)


def test_a_bare_array_is_a_state(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, jnp.arange(3.0))
        assert checkpoints.restore(jnp.zeros(3)).tolist() == [0.0, 1.0, 2.0]


@settings(max_examples=10, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.tuples(
            st.sampled_from(["float32", "float64", "bfloat16", "int8", "uint32", "bool"]),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 2**32 - 1),
)
def test_any_names_types_and_shapes_come_back(tmp_path_factory, layout, seed):
    generator = np.random.default_rng(seed)
    arrays = {
        name: np.asarray(generator.normal(size=shape) * 100).astype(jnp.dtype(dtype))
        for name, (dtype, shape) in layout.items()
    }
    state = (arrays, np.array([seed % 7]))
    with Checkpoints(tmp_path_factory.mktemp("any")) as checkpoints:
        checkpoints.save(1, state)
        assert bits(checkpoints.restore(jax.tree.map(np.zeros_like, state))) == bits(state)


def test_a_state_may_be_donated_as_soon_as_it_is_saved(tmp_path):
    increment = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = {str(i): jnp.full((200, 500), float(i)) for i in range(8)}
    with Checkpoints(tmp_path, keep_latest=3) as checkpoints:
        for step in range(1, 4):
            buffers = {leaf.unsafe_buffer_pointer() for leaf in state.values()}
            checkpoints.save(step, state)
            donated, state = state, increment(state)
            assert all(leaf.is_deleted() for leaf in donated.values())
            # Donation really took place: a view that somebody still held would have made it a silent copy.
            assert buffers == {leaf.unsafe_buffer_pointer() for leaf in state.values()}
        for step in range(1, 4):
            for name, leaf in checkpoints.restore(state, step).items():
                assert np.unique(leaf).tolist() == [float(name) + step - 1]


def test_a_committed_template_keeps_its_device(tmp_path):
    device = jax.devices()[0]
    state = {"key": jax.random.key(0), "x": jnp.ones(2)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        assert not any(leaf.committed for leaf in checkpoints.restore(state).values())
        committed = checkpoints.restore(jax.device_put(state, device))
    assert all(leaf.committed and leaf.devices() == {device} for leaf in committed.values())


def test_the_latest_and_the_best_are_kept_over_restarts(tmp_path):
    scores = {1: 0.2, 2: 0.9, 3: 0.4, 4: None, 5: 0.1}
    for step, score in scores.items():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, {"x": jnp.array([step])}, None if score is None else {"success": score, "q": 1.0})
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.steps(), checkpoints.latest_step(), checkpoints.best_step()) == ([2, 4, 5], 5, 2)
        assert checkpoints.restore({"x": jnp.array([0])}, 2)["x"].tolist() == [2]
        checkpoints.save(6, {"x": jnp.array([6])}, {"success": 0.9})
        assert (checkpoints.steps(), checkpoints.best_step()) == ([5, 6], 6)
    assert sorted(os.listdir(tmp_path)) == ["5", "6"]


def test_a_checkpoint_with_a_success_is_better_than_those_with_a_return_alone(tmp_path):
    scores = [{"return": -3.0}, {"return": 9.0}, {"success": 0.1, "return": -1.0}, {"success": 0.0, "return": 5.0}]
    best = []
    with Checkpoints(tmp_path) as checkpoints:
        for step, score in enumerate(scores, start=1):
            checkpoints.save(step, {"x": jnp.array([step])}, score)
            best.append(checkpoints.best_step())
    assert best == [1, 2, 3, 3]


def test_more_can_be_kept_and_none_of_the_best(tmp_path):
    with Checkpoints(tmp_path, keep_latest=2, keep_best=0) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, {"x": jnp.array([step])}, {"success": 1 / step})
        assert checkpoints.steps() == [3, 4]
    with pytest.raises(ValueError, match="keep_latest is 0 and keep_best 1"):
        Checkpoints(tmp_path, keep_latest=0)


def test_without_a_score_there_is_no_best_and_the_last_two_are_kept(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None and checkpoints.best_step() is None
        checkpoints.save(1, {"x": jnp.ones(1)}, {"q_loss": 3.0})
        checkpoints.save(2, {"x": jnp.ones(1)}, {"success": float("nan")})
        checkpoints.save(3, {"x": jnp.ones(1)})
        assert checkpoints.steps() == [2, 3] and checkpoints.best_step() is None


def test_a_directory_may_be_moved(tmp_path):
    with Checkpoints(tmp_path / "here") as checkpoints:
        checkpoints.save(1, {"x": jnp.ones(2)})
    shutil.move(tmp_path / "here", tmp_path / "there")
    with Checkpoints(tmp_path / "there") as checkpoints:
        assert checkpoints.restore({"x": jnp.zeros(2)})["x"].tolist() == [1.0, 1.0]


def test_an_older_checkpoint_can_be_continued_and_the_later_ones_go_with_the_next(tmp_path):
    with Checkpoints(tmp_path, keep_latest=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"x": jnp.array([step])})
        assert checkpoints.restore({"x": jnp.array([0])}, 1)["x"].tolist() == [1]
        checkpoints.set_aside_after(1)
        assert checkpoints.steps() == [1] and (tmp_path / "replaced" / "3").is_dir()
    with Checkpoints(tmp_path, keep_latest=3) as checkpoints:
        assert (tmp_path / "replaced" / "3").is_dir()
        checkpoints.save(3, {"x": jnp.array([33])})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3] and not (tmp_path / "replaced").exists()
        assert checkpoints.restore({"x": jnp.array([0])})["x"].tolist() == [33]


def test_a_record_comes_back_and_those_of_version_0_1_0_have_none(tmp_path):
    record = {"rows": {"count": 3}, "seeds": [0, 5]}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(2)}, record=record)
        assert checkpoints.record() == record
        path = tmp_path / "1" / "description" / "metadata"
        description = json.loads(path.read_text())
        path.write_text(json.dumps(description | {"record": record | {"seeds": [0]}}))
        with pytest.raises(CheckpointError, match="its description differs from what was saved"):
            checkpoints.record()
        path.write_text(json.dumps({name: description[name] for name in ("format_version", "leaves")}))
        assert checkpoints.record() is None
        assert checkpoints.restore({"w": jnp.zeros(2)})["w"].tolist() == [1.0, 1.0]
        path.write_text(json.dumps({"format_version": 1, "leaves": description["leaves"], "novelty": 1}))
        with pytest.raises(CheckpointError, match=r"has the unknown fields \['novelty'\], and version 1 was expected"):
            checkpoints.restore({"w": jnp.zeros(2)})


def test_the_description_on_disk_is_readable(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"key": jax.random.key(0), "w": jnp.ones((3, 2))})
    description = json.loads((tmp_path / "1" / "description" / "metadata").read_text())
    assert description["format_version"] == 1
    assert description["leaves"]["['w']"]["type"] == "float32[3,2]"
    assert description["leaves"]["['key']"]["key"] == "threefry2x32"
