"""An OGBench set, a file or a directory of parts, becomes data directories with all arrays of its files."""

from typing import Any

import numpy as np
import pytest

from sorl.convert import __main__ as command
from sorl.data.mapped.reader import open_arrays


def _part(path, episodes, seed=0):
    random, rows = np.random.default_rng(seed), 4 * episodes
    arrays: dict[str, Any] = {
        name: random.normal(size=(rows, 2)).astype(np.float32) for name in ("observations", "actions", "qpos")
    }
    np.savez(path, **arrays, terminals=np.arange(rows) % 4 == 3)
    return arrays


@pytest.mark.parametrize("source", ["set.npz", "."])
def test_a_file_and_a_directory_of_parts_become_data_directories(tmp_path, capsys, source):
    folder = tmp_path / "set"
    folder.mkdir()
    parts = [_part(folder / "set.npz", 2)] + [_part(folder / "tail.npz", 1, seed=1)] * (source == ".")
    held_out = _part(folder / "set-val.npz", 1, seed=2)
    out = tmp_path / "mapped" / "cube-single-play-v0"
    command.main(command.Config(folder / source, out))
    for path, expected in ((out, parts), (out.with_name(f"{out.name}-val"), [held_out])):
        manifest, found = open_arrays(path)
        assert manifest.episodes == manifest.rows / 4
        for name in held_out:
            np.testing.assert_array_equal(found[name], np.concatenate([part[name] for part in expected]))
    said = capsys.readouterr().out
    assert f"Wrote {out}: {2 * len(parts) - (source == '.')} episodes" in said and f"--data-dir {out.parent}" in said
    with pytest.raises(FileExistsError, match="cube-single-play-v0 exists already"):
        command.main(command.Config(folder / source, out))


def test_what_cannot_be_converted_is_refused(tmp_path):
    _part(tmp_path / "set.npz", 2)
    with pytest.raises(ValueError, match="out.npz ends in .npz, but an OGBench set .* give a name without an ending"):
        command.main(command.Config(tmp_path / "set.npz", tmp_path / "out.npz"))
    with pytest.raises(ValueError, match=r"reward is last-step, but data such as .* do not use it"):
        command.main(command.Config(tmp_path / "set.npz", tmp_path / "out", reward=("last-step",)))
    content: dict[str, Any] = {**np.load(tmp_path / "set.npz"), "terminals": np.zeros(8)}
    np.savez(tmp_path / "set.npz", **content)
    with pytest.raises(ValueError, match="The last trajectory of .*set.npz is not closed: row 7"):
        command.main(command.Config(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
