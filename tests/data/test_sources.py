"""Sources of data are built from the options of a run, and load what the functions of the same names load."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sorl.config.options import DataConfig, TrainConfig
from sorl.data import Generated, Logs, Ogbench, load_logs
from sorl.data.hdf5.source import Hdf5
from sorl.data.ogbench import source as ogbench_source
from sorl.data.sources import USER_SOURCES, user_source
from sorl.data.tables.source import TableFile


ENV = "cube-single-play-singletask-task1-v0"


@pytest.mark.parametrize(
    ("env", "data", "expected"),
    [
        (ENV, DataConfig(), Ogbench(ENV)),
        (
            ENV,
            DataConfig(directory=Path("d"), mirrors=("https://a",), download=False),
            Ogbench(ENV, Path("d"), ("https://a",), False),
        ),
        (ENV, DataConfig(sparse_rewards=True), Ogbench(ENV, sparse_rewards=True)),
        (ENV, DataConfig(episodes=3, generation_seed=5), Generated(ENV, 3, 5)),
        (ENV, DataConfig(episodes=3, sparse_rewards=True), Generated(ENV, 3, 0, sparse_rewards=True)),
        (None, DataConfig(path=Path("a.npz")), Logs(Path("a.npz"))),
        (None, DataConfig(path=Path("a.npz"), sparse_rewards=True), Logs(Path("a.npz"), sparse_rewards=True)),
        (
            "gymnasium:Pendulum-v1",
            DataConfig(
                path=Path("a.npz"),
                validation_fraction=0.5,
                observation_margin=None,
                action_low=(-1.0,),
                action_high=(2.0,),
            ),
            Logs(Path("a.npz"), 0.5, None, (-1.0,), (2.0,)),
        ),
    ],
)
def test_options_name_a_source(env, data, expected):
    assert data.source(env) == expected


def test_a_run_without_environment_and_logs_has_no_source():
    with pytest.raises(ValueError, match="neither an environment nor a file of logs; give --env, --data, or both"):
        DataConfig().source(None)


def test_logs_load_as_load_logs_does(tmp_path):
    random, rows = np.random.default_rng(0), 30
    np.savez(
        tmp_path / "logs.npz",
        observations=random.normal(size=(rows, 2)),
        actions=random.uniform(-3, 3, (rows, 1)),
        rewards=random.normal(size=rows),
        terminals=np.arange(rows) % 10 == 9,
        timeouts=np.zeros(rows, bool),
    )
    source = Logs(tmp_path / "logs.npz", validation_fraction=0.4, action_low=-4.0, action_high=4.0)
    found, expected = source.load(), load_logs(source.path, validation_fraction=0.4, action_low=-4.0, action_high=4.0)
    np.testing.assert_array_equal(found.train.observations, expected.train.observations)
    assert found.provenance == expected.provenance and found.normalisation.action_high.tolist() == [4.0]
    # A run that is continued keeps its units.
    wider = dataclasses.replace(source, action_low=None, action_high=None).load(normalisation=found.normalisation)
    assert wider.normalisation.action_high.tolist() == [4.0]


def test_the_users_own_options_are_options_of_the_command_line():
    options = {field.name for field in dataclasses.fields(DataConfig)}
    for source in USER_SOURCES:
        assert {field.name for field in dataclasses.fields(source)} <= options


def test_the_form_of_a_path_names_the_source():
    found = {name: user_source(Path(name)) for name in ("a.hdf5", "b.H5", "c.parquet", "d.csv", "e.npz", "f")}
    assert list(found.values()) == [Hdf5, Hdf5, TableFile, TableFile, Logs, Logs]
    assert user_source(Path("a.npz"), columns=Path("names.toml")) is TableFile


def test_options_of_another_format_are_refused():
    assert DataConfig(path=Path("a.h5"), split="train").source(None) == Hdf5(Path("a.h5"), split="train")
    with pytest.raises(ValueError, match="split is train, but data such as a.npz do not use it; leave it out"):
        DataConfig(path=Path("a.npz"), split="train").source(None)
    with pytest.raises(ValueError, match="data.reward is for your own data; give --data too"):
        TrainConfig(data=DataConfig(reward=("last-step",)))
    with pytest.raises(ValueError, match="The reward is 'at the end'; give success-at-end, last-step, or from COLUMN"):
        DataConfig(path=Path("a.h5"), reward=("at the end",))


def test_ogbench_loads_with_its_options(monkeypatch):
    def asked(env, **options):
        raise LookupError(env, options)

    monkeypatch.setattr(ogbench_source, "load_ogbench", asked)
    with pytest.raises(LookupError) as raised:
        TrainConfig(env=ENV, data=DataConfig(directory=Path("d"), download=False)).source.load()
    options = {"data_dir": Path("d"), "mirrors": (), "download": False, "sparse_rewards": False, "residence": "auto"}
    assert raised.value.args == (ENV, options)
