"""Training on data that stay on the device, in memory and on disk gives the same bits."""

import dataclasses
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from sorl.agents import Fql, Iql
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig
from sorl.data import load_logs
from sorl.runs import run as runs
from sorl.train import feeding, hyperparameters, loop
from sorl.train.draws import Batches
from sorl.train.members import Members
from sorl.train.session import Session
from sorl.train.trainer import Trainer, initial

from .. import synthetic
from ..bits import equal
from ..data.test_residence import write_both


PLACES = ("device", "host", "disk")


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A data directory of made-up logs."""
    lengths = [30, 7, 1, 25, 40, 12, 9, 33]
    return write_both(tmp_path_factory.mktemp("logs"), lengths, known=(0, 3, 5), terminated=(29, 50, 100))[1]


@pytest.fixture(autouse=True)
def _small_slabs(monkeypatch):
    """Slabs of two tiles, so that a few updates need several."""
    monkeypatch.setattr(feeding, "TILES_IN_SLAB", 2)


def _config(logs: Path, **fields) -> TrainConfig:
    return TrainConfig(
        **{
            "env": None,
            "agent": synthetic.tiny(Iql),
            "data": DataConfig(path=logs),
            "evaluation": EvaluationConfig(interval=0),
            "seeds": (0, 5),
            "updates": 80,
            "batch_size": 16,
            "log_interval": 40,
            "checkpoint_interval": 40,
        }
        | fields
    )


def _loaded(logs, place):
    return load_logs(logs, validation_fraction=0.3, residence=place)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_residences_train_to_the_same_bits(logs):
    """Also where chunks end within a tile and within a slab; held-out losses too.

    The run that changes its residence, below, does the same for windows of one step.
    """
    config = _config(logs, agent=synthetic.tiny(Fql, n_step=4, chunk=2))
    found = []
    for place, lengths in zip(PLACES, ([80], [1, 15, 64], [33, 40, 7]), strict=True):
        data = _loaded(logs, place)
        trainer, state = Trainer(config, data.train), initial(config, data.train)
        for updates in lengths:
            state = trainer.train(state, updates)
        members = Members(config, data)
        # The held-out batches are the argument of one program, wherever the data stay.
        found.append((state, members.validation_losses(state), members._held_out))
    assert int(found[0][0].step) == 80 and found[0][1] and isinstance(found[0][2], Batches)
    for other in found[1:]:
        assert equal(found[0], other)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_seeds_at_once_and_members_with_own_discounts_are_the_same_bits_too(logs):
    config = _config(logs, agent=synthetic.tiny(Iql, n_step=3), updates=20, seed_mapping="vmap")
    agents = [dataclasses.replace(config.agent, discount=value) for value in (0.5, 0.9)]
    own, states = hyperparameters.own_settings(agents), []
    for place in PLACES[:2]:
        data = _loaded(logs, place).train
        state = loop.init(config.agent, data, (0, 5), own, batch_size=16)
        if place == "host":
            feed = feeding.Feed(data, config.agent.window, state.keys, batch_size=16, updates=20, tile=loop.TILE)
            ((data, updates),) = feed.chunks(0, 20)
            assert updates == 20
        settings = {"batch_size": 16, "log_interval": 5, "seed_mapping": "vmap"}
        states.append(loop.run_chunk(config.agent, state, data, jnp.int32(20), own, **settings))
    assert equal(*states)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_may_change_residence_when_it_resumes(logs, tmp_path, monkeypatch):
    def config(place):
        return _config(logs, data=DataConfig(path=logs, residence=place))

    def run(directory, place, *, resume=False):
        data = config(place).source.load()
        if not resume:
            runs.create(directory, config(place))
        return Session(config(place), directory, data, resume=resume, quiet=True).run()

    undisturbed, changed = tmp_path / "undisturbed", tmp_path / "changed"
    run(undisturbed, "device")
    train = Trainer.train

    def dies(trainer, state, updates):
        if int(state.step) >= 40:
            raise SystemExit("killed")
        return train(trainer, state, updates)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", dies)
        with pytest.raises(SystemExit):
            run(changed, "disk")
    shutil.copytree(changed, tmp_path / "again")
    for directory, place in ((changed, "host"), (tmp_path / "again", "device")):
        assert run(directory, place, resume=True).step == 80
        assert (directory / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
        for seed in (0, 5):
            one, other = (runs.load_run(path).policies[seed].networks for path in (directory, undisturbed))
            assert equal(one, other)


def test_a_slab_is_gathered_ahead_and_others_are_forgotten(logs):
    before = set(threading.enumerate())
    data = _loaded(logs, "disk").train
    keys = jax.random.split(jax.random.key(0), 3)
    feed = feeding.Feed(data, synthetic.tiny(Iql).window, keys, batch_size=4, updates=100, tile=16)
    (first, one), (second, two) = feed.chunks(30, 5)
    assert (one, two, int(first.first), int(second.first)) == (2, 3, 0, 32)
    assert first.windows.observation.shape == (3, 32, 4, 3)
    assert list(feed._slabs) == [1, 2]
    ((again, three),) = feed.chunks(35, 4)
    assert again is second and three == 4
    # No slab begins after the last update.
    list(feed.chunks(96, 4))
    assert list(feed._slabs) == [3]
    # The thread ends with the feed.
    feed.close()
    assert not {thread for thread in threading.enumerate() if thread.name.startswith("sorl-batches")} - before
