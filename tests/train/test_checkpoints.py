"""Checkpoints come back bit for bit, whatever happens while they are written, or say in a sentence why they do not."""

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from jaxtyping import Array, PyTree

from sorl.train import checkpoint_content
from sorl.train.checkpoints import CheckpointError, Checkpoints


class Network(eqx.Module):
    weight: Array
    name: str = eqx.field(static=True, default="network")


class State(eqx.Module):
    networks: tuple[Network, Network]
    optimiser: PyTree
    key: Array
    extras: dict[str, Array]


def a_state(seed: int = 0) -> State:
    keys = jax.random.split(jax.random.key(seed), 4)
    networks = (Network(jax.random.normal(keys[0], (3, 4))), Network(jax.random.normal(keys[1], (5,))))
    extras = {
        "bfloat16": jax.random.normal(keys[2], (7,)).astype(jnp.bfloat16),
        "flags": jnp.array([True, False, True]),
        "step": jnp.int32(-7),
        "nothing": jnp.zeros((0, 3)),
        "special": jnp.array([jnp.nan, -jnp.inf, -0.0, 1e-45]),
        "rbg": jax.random.key(seed, impl="rbg"),
    }
    weights: Any = networks
    optimiser = optax.adam(1e-3).init(weights)
    return State(networks, optimiser, jax.random.split(keys[3], 2), extras)


def bits(tree: PyTree) -> list[tuple[str, tuple[int, ...], bytes]]:
    """What has to be equal: types, shapes and every bit (NaN and -0.0 too)."""
    leaves = jax.tree.leaves(tree)
    data = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return [(str(x.dtype), x.shape, np.array(y).tobytes()) for x, y in zip(leaves, data, strict=True)]


@contextmanager
def x64() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def flip_a_bit_of_the_arrays(directory: Path) -> None:
    """In the middle of the largest file: there the arrays' own bytes are."""
    file = max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


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


def test_a_reader_leaves_a_running_training_alone(tmp_path):
    with Checkpoints(tmp_path) as writer:
        writer.save(1, {"x": jnp.ones(2)})
        writer.wait()
        unfinished = tmp_path / "2.orbax-checkpoint-tmp"
        unfinished.mkdir()
        with Checkpoints(tmp_path, read_only=True) as reader:
            assert reader.steps() == [1]
            assert reader.restore({"x": jnp.zeros(2)})["x"].tolist() == [1.0, 1.0]
        assert unfinished.is_dir()
    with Checkpoints(tmp_path) as writer:
        writer.save(2, {"x": jnp.zeros(2)})
    assert not unfinished.exists()
    with pytest.raises(CheckpointError, match="no such directory"):
        Checkpoints(tmp_path / "elsewhere", read_only=True)


def test_a_directory_may_be_moved(tmp_path):
    with Checkpoints(tmp_path / "here") as checkpoints:
        checkpoints.save(1, {"x": jnp.ones(2)})
    shutil.move(tmp_path / "here", tmp_path / "there")
    with Checkpoints(tmp_path / "there") as checkpoints:
        assert checkpoints.restore({"x": jnp.zeros(2)})["x"].tolist() == [1.0, 1.0]


def test_what_is_missing_is_named(tmp_path):
    with Checkpoints(tmp_path, keep_latest=2) as checkpoints:
        with pytest.raises(CheckpointError, match="There is no checkpoint in"):
            checkpoints.restore({"x": jnp.ones(1)})
        checkpoints.save(4, {"x": jnp.ones(1)})
        checkpoints.save(8, {"x": jnp.ones(1)})
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 5 in .*; it holds step 4, 8\."):
            checkpoints.restore({"x": jnp.ones(1)}, 5)
        with pytest.raises(CheckpointError, match="step 8 was not saved: .* holds step 8 already"):
            checkpoints.save(8, {"x": jnp.ones(1)})


@pytest.mark.parametrize(
    "template, sentence",
    [
        ({"w": jnp.ones((2, 3)), "b": jnp.ones(2)}, r"\['w'\] is float32\[3,2\] and float32\[2,3\] was expected;"),
        ({"w": jnp.ones((3, 2)), "b": jnp.ones(2, int)}, r"\['b'\] is float32\[2\] and int32\[2\] was expected;"),
        ({"w": jnp.ones((3, 2))}, r"\['b'\] is float32\[2\] and nothing was expected;"),
        ({"w": jnp.ones((3, 2)), "b": jnp.ones(2), "c": jnp.ones(1)}, r"\['c'\] is missing and float32\[1\] was"),
        ({"w": jax.random.key(0), "b": jnp.ones(5)}, r"\['b'\] is .* \(one of 2 differences\);"),
    ],
)
def test_a_template_that_does_not_fit_is_named(tmp_path, template, sentence):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones((3, 2)), "b": jnp.ones(2)})
        with pytest.raises(CheckpointError, match=sentence):
            checkpoints.restore(template)


def test_only_arrays_are_saved(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match=r"The state holds \['activation'\], of type function"):
            checkpoints.save(1, {"activation": lambda x: x, "w": jnp.ones(2)})
        assert checkpoints.steps() == []


def test_an_unknown_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_content, "FORMAT_VERSION", 99)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(2)})
    monkeypatch.undo()
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match="has format version 99, and version 1 was expected"):
            checkpoints.restore({"w": jnp.ones(2)})


def test_a_flipped_bit_is_noticed(tmp_path):
    state = {"w": jax.random.normal(jax.random.key(0), (100, 100)), "b": jnp.ones(3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    flip_a_bit_of_the_arrays(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match=r"step 1 in .* is damaged \("):
            checkpoints.restore(state)


@pytest.mark.parametrize("missing", ["description/metadata", "state/manifest.ocdbt", "state", "description"])
def test_missing_files_are_told_in_one_sentence(tmp_path, missing):
    state = {"w": jnp.ones(2)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.wait()
        target = tmp_path / "1" / missing
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        with pytest.raises(CheckpointError, match="The checkpoint of step 1 in .* is damaged") as error:
            checkpoints.restore(state)
    assert "\n" not in str(error.value)


def test_a_damaged_score_is_told_with_its_name_when_the_directory_is_opened(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(2)}, {"success": 1.0})
    path = tmp_path / "1" / "metrics" / "metrics"
    for content in ("{", "", "[1]", '{"success": "high"}', '{"sucess": 1.0}'):
        path.write_text(content)
        with pytest.raises(
            CheckpointError, match=f"^{path} is damaged: a JSON object with success or return was expected; remo"
        ):
            Checkpoints(tmp_path)
    path.unlink()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore({"w": jnp.zeros(2)})["w"].tolist() == [1.0, 1.0] and checkpoints.best_step() is None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _flip(place: float):
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 0x41
        path.write_bytes(content)

    return damage


DAMAGES = {
    "truncated": _truncate,
    "flipped at the start": _flip(0.0),
    "flipped early": _flip(0.3),
    "flipped in the middle": _flip(0.5),
    "flipped late": _flip(0.8),
    "flipped at the end": _flip(0.999),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": Path.unlink,
    "replaced by a directory": _replace_by_directory,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damaged_file_is_one_sentence_or_was_not_needed(tmp_path, damage, capfd):
    state = a_state()
    with Checkpoints(tmp_path / "whole") as checkpoints:
        checkpoints.save(1, state)
        checkpoints.save(2, state, {"success": 0.5}, record={"rows": 3})
    files = [path for path in (tmp_path / "whole" / "2").rglob("*") if path.is_file()]
    refused = 0
    for file in files:
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        DAMAGES[damage](copy / file.relative_to(tmp_path / "whole"))
        try:
            with Checkpoints(copy, read_only=True) as checkpoints:
                restored = checkpoints.restore(a_state(seed=1))
                assert checkpoints.record() == {"rows": 3}
            assert bits(restored) == bits(state)
        except CheckpointError as error:
            refused += 1
            expected = rf"The checkpoint of step 2 in {copy} is damaged \([^\n]+\); continue .* --from-step 1\."
            expected_score = rf"{copy}/2/metrics/metrics is damaged: [^\n]*"
            assert re.fullmatch(f"{expected}|{expected_score}", str(error)), error
        shutil.rmtree(copy)
    gc.collect()
    assert len(files) > 12 and refused >= 3
    assert capfd.readouterr() == ("", "")


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


def test_a_link_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="checkpoints is a symbolic link; put the directory itself"):
        Checkpoints(tmp_path / "checkpoints")
    assert not list((tmp_path / "elsewhere").iterdir())


_FILL_THE_DISK = textwrap.dedent(
    """
    import gc, resource, sys
    import numpy as np
    from sorl.train.checkpoints import CheckpointError, Checkpoints

    state = {str(i): np.random.default_rng(i).normal(size=2000) for i in range(3)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
    try:
        with Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(1, state)
    except CheckpointError as error:
        print(error)
    gc.collect()
    """
)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    command = [sys.executable, "-c", _FILL_THE_DISK, str(tmp_path / "checkpoints")]
    # The limit would hold for the file that counts coverage too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    assert re.fullmatch(r"The last checkpoint in .*checkpoints was not saved \(.*\); .*\.\n", ended.stdout)
    assert ended.stderr == ""


def test_a_save_that_fails_is_told_by_wait_and_by_the_next_save(tmp_path):
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory)
    checkpoints.save(1, {"w": jnp.ones(2)})
    checkpoints.wait()
    shutil.rmtree(directory)
    directory.write_text("a file where the directory was")
    with pytest.raises(CheckpointError, match=r"2 in .* was not saved \(.*Not a directory"):
        checkpoints.save(2, {"w": jnp.ones(2)})
        checkpoints.wait()
    directory.unlink()
    directory.mkdir()
    checkpoints.close()
    checkpoints.close()


def test_saving_is_quiet(tmp_path, capfd):
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 4):
            checkpoints.save(step, {"w": jnp.ones(2)}, {"success": 1.0} if step == 2 else None)
        checkpoints.restore({"w": jnp.ones(2)})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        checkpoints.restore({"w": jnp.ones(2)})
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")


_SAVE_IN_A_LOOP = textwrap.dedent(
    """
    import sys
    import numpy as np
    from sorl.train.checkpoints import Checkpoints

    def state(step):
        return {str(i): np.full((50, 100), float(step * 10 + i), np.float32) for i in range(5)}

    with Checkpoints(sys.argv[1]) as checkpoints:
        latest = checkpoints.latest_step()
        step = 0 if latest is None else latest
        if latest is not None:
            restored = checkpoints.restore(state(0))
            assert all((restored[name] == value).all() for name, value in state(latest).items()), "inconsistent"
        print(step, flush=True)
        while True:
            step += 1
            checkpoints.save(step, state(step), {"success": float(step % 7)} if step % 3 == 0 else None)
            print(step, flush=True)
    """
)


@pytest.mark.slow
def test_a_process_killed_at_random_moments_leaves_whole_checkpoints(tmp_path):
    directory = tmp_path / "checkpoints"
    generator = np.random.default_rng(0)
    reached = []
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVE_IN_A_LOOP, str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": ""},  # killed, it may leave half a program
        )
        assert process.stdout is not None
        for _ in range(generator.integers(4, 12)):  # each save waits for the one before: at least two are whole
            assert re.fullmatch(r"\d+\n", process.stdout.readline()), process.communicate()[1]
        time.sleep(generator.uniform(0.0, 0.1))
        process.kill()
        process.communicate()
        reached.append(check_all_checkpoints(directory))
    assert reached == sorted(reached) and reached[-1] > 10


def check_all_checkpoints(directory: Path) -> int:
    """Every checkpoint that is offered is whole, the latest and the best among them; returns the latest step."""
    with Checkpoints(directory, read_only=True) as checkpoints:
        template: Any = {str(i): np.zeros((50, 100), np.float32) for i in range(5)}
        for step in checkpoints.steps():
            restored = checkpoints.restore(template, step)
            assert [np.unique(restored[str(i)]).tolist() for i in range(5)] == [[step * 10.0 + i] for i in range(5)]
        latest, best = checkpoints.latest_step(), checkpoints.best_step()
    assert latest is not None
    scored = [step for step in range(1, latest + 1) if step % 3 == 0]
    expected = max(scored, key=lambda step: (step % 7, step)) if scored else None
    assert best == expected
    return latest


def test_the_description_on_disk_is_readable(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"key": jax.random.key(0), "w": jnp.ones((3, 2))})
    description = json.loads((tmp_path / "1" / "description" / "metadata").read_text())
    assert description["format_version"] == 1
    assert description["leaves"]["['w']"]["type"] == "float32[3,2]"
    assert description["leaves"]["['key']"]["key"] == "threefry2x32"
