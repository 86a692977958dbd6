"""Checkpoints that are damaged, missing or do not fit say so in one sentence."""

import gc
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from sorl.train import checkpoint_content
from sorl.train.checkpoints import CheckpointError, Checkpoints

from .states import a_state, bits


def flip_a_bit_of_the_arrays(directory: Path) -> None:
    """In the middle of the largest file: there the arrays' own bytes are."""
    file = max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


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


def test_a_link_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="checkpoints is a symbolic link; put the directory itself"):
        Checkpoints(tmp_path / "checkpoints")
    assert not list((tmp_path / "elsewhere").iterdir())
