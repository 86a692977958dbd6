"""Sparse rewards, and scaled ones, of data in every format and wherever they stay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl.config.options import DataConfig
from sorl.data.mapped.writer import MappedWriter
from sorl.data.residence import Residence
from sorl.data.transitions import Window

from .. import recorded_files


def _episodes():
    found = recorded_files.episodes()
    for one in found:
        one["rewards"][::2] = 0
    return found


def _npz(folder):
    found = _episodes()
    ends = np.cumsum([len(one["rewards"]) for one in found]) - 1
    arrays: dict[str, Any] = {name: np.concatenate([one[name] for one in found]) for name in ("actions", "rewards")}
    observations = np.concatenate([one["observations"][:-1] for one in found])
    flags = np.isin(np.arange(len(observations)), ends)
    np.savez(folder / "a.npz", observations=observations, **arrays, terminals=flags, timeouts=np.zeros(len(flags)))
    return folder / "a.npz"


def _mapped(folder):
    with MappedWriter(folder / "a") as writer:
        for one in _episodes():
            states = one.pop("observations")
            writer.append({**one, "observations": states[:-1], "terminations": one["rewards"] > 9}, states[-1])
    return folder / "a"


def _d4rl(folder):
    pytest.importorskip("h5py")
    return recorded_files.write_d4rl(folder / "a.hdf5", _episodes(), ["terminal", "timeout", "terminal"])


def _robomimic(folder):
    pytest.importorskip("h5py")
    dones = [[0, 0, 0, 1], [0, 0, 1], [0, 0, 0, 0, 1]]
    return recorded_files.write_robomimic(folder / "a.hdf5", _episodes(), dones)


def _lerobot(folder):
    pytest.importorskip("pyarrow")
    found = _episodes()
    columns = {"next.reward": [one["rewards"] for one in found]}
    return recorded_files.write_lerobot(folder / "a", found, "v3.0", columns)


def _minari(folder):
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from . import test_minari  # a file that is skipped without Minari

    test_minari.record("pendulum/sparse-v0")
    return folder / "sets" / "pendulum" / "sparse-v0"


def _csv(folder):
    return recorded_files.write_table(folder / "a.csv", _episodes())


def _parquet(folder):
    pytest.importorskip("pyarrow")
    return recorded_files.write_table(folder / "a.parquet", _episodes())


FORMATS = (_npz, _mapped, _d4rl, _robomimic, _lerobot, _minari, _csv, _parquet)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__[1:])
def test_every_source_makes_them_wherever_the_data_stay(tmp_path, monkeypatch, write):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    path = write(tmp_path)
    places: tuple[Residence, ...] = ("device", "host", "disk") if write is _mapped else ("device", "host")
    for place in places:

        def load(place: Residence = place, **options):
            config = DataConfig(path=path, residence=place, validation_fraction=0.0, **options)
            data = config.source(None).load()
            indices = np.arange(len(data.train), dtype=np.int32)
            with jax.disable_jit():
                windows = data.train.gather(jnp.asarray(indices) if place == "device" else indices, Window())
            return np.asarray(windows.rewards), np.asarray(windows.masks), data

        (dense, masks, _), (found, own_masks, data) = load(), load(sparse_rewards=True)
        np.testing.assert_array_equal(found, np.where(dense == 0, 0, -1))
        np.testing.assert_array_equal(own_masks, masks)
        assert (found == 0).any() == (write is not _minari) and (found == -1).any()
        assert data.provenance["sparse_rewards"] is True and data.provenance["summary"]["reward_max"] <= 0
        np.testing.assert_array_equal(load(reward_scale=2.0)[0], 2 * dense)
