"""A session: rows, checkpoints and policies, and that a resumed run equals one that never stopped."""

import dataclasses
import hashlib
import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

import sorl
from sorl import load_policy
from sorl.agents import Sorl
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig
from sorl.data import load_logs
from sorl.runs import run as runs
from sorl.runs.metrics import read_metrics
from sorl.runs.versions import record_versions, source_digest
from sorl.train import loop
from sorl.train.checkpoints import Checkpoints
from sorl.train.session import Session

from .. import synthetic
from ..bits import arrays, equal


@pytest.fixture
def data(tmp_path):
    synthetic.write_logs(tmp_path / "logs.npz")
    return load_logs(tmp_path / "logs.npz", validation_fraction=0.25)


def _config(tmp_path, **fields) -> TrainConfig:
    return TrainConfig(
        env=None,
        agent=synthetic.agent(),
        data=DataConfig(path=tmp_path / "logs.npz"),
        evaluation=EvaluationConfig(interval=0),
        **({"seeds": (0, 5), "updates": 30, "batch_size": 16, "log_interval": 10, "checkpoint_interval": 12} | fields),
    )


def _run(config, directory, data, *, resume=False):
    if not resume:
        runs.create(directory, config)
    record_versions(directory, config, data.provenance)
    return Session(config, directory, data, resume=resume, quiet=True).run()


def _metrics(directory) -> bytes:
    return (directory / "metrics.jsonl").read_bytes()


def _policies(directory, config) -> list[np.ndarray]:
    return arrays([load_policy(runs.policy_path(directory, seed)).networks for seed in config.seeds])


def test_rows_checkpoints_and_policies(tmp_path, data):
    config = _config(tmp_path)
    ending = _run(config, tmp_path / "run", data)
    assert (ending.step, ending.signal, ending.bad_seeds) == (30, None, {})
    rows = read_metrics(tmp_path / "run")
    assert [(row["step"], row["seed"]) for row in rows] == [(s, seed) for s in (10, 20, 30) for seed in (0, 5)]
    assert {"training/critic_loss", "validation/critic_loss", "training/policy_grad_norm"} <= rows[0].keys()
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 30
    run = runs.load_run(tmp_path / "run")
    assert run.step == 30 and list(run.policies) == [0, 5]
    assert run.config == config
    recorded = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert recorded["data"]["source"] == "own logs" and recorded["jax"] == jax.__version__
    assert recorded["source_sha256"] == source_digest(Path(sorl.__file__).parent)


def test_code_is_told_apart_by_names_and_contents_of_its_modules(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text("a = 1\n")
    (tmp_path / "notes.txt").write_text("no code")
    expected = hashlib.sha256(b"room/one.py 6\na = 1\n").hexdigest()
    assert source_digest(tmp_path) == expected
    (tmp_path / "room" / "one.py").rename(tmp_path / "one.py")
    assert source_digest(tmp_path) != expected


def test_logged_means_are_the_losses_of_their_interval(tmp_path, data):
    config = _config(tmp_path, updates=4, log_interval=2)
    _run(config, tmp_path / "run", data)
    losses = []
    state = loop.init(config.agent, data.train, config.seeds, batch_size=16)
    for _ in range(4):
        state = loop.run_chunk(
            config.agent, state, data.train, np.int32(1), batch_size=16, log_interval=1, seed_mapping="map"
        )
        losses.append(np.asarray(state.metric_sums["critic_loss"]))
    for row in read_metrics(tmp_path / "run"):
        expected = np.mean(losses[row["step"] - 2 : row["step"]], axis=0)[config.seeds.index(row["seed"])]
        np.testing.assert_allclose(row["training/critic_loss"], expected, rtol=1e-6)


class _Kill(Exception):
    pass


@pytest.mark.parametrize("method, calls", [("_log_if_due", 3), ("_save", 2), ("_evaluate_if_due", 4), ("_save", 1)])
def test_resumed_equals_never_stopped(tmp_path, data, monkeypatch, method, calls):
    """The session dies at the start or the end of something; what it left behind is enough."""
    config = _config(tmp_path)
    _run(config, tmp_path / "whole", data)
    count = 0
    original = getattr(Session, method)

    def dies(session, *arguments):
        nonlocal count
        count += 1
        if count == calls:
            raise _Kill
        original(session, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Session, method, dies)
        with pytest.raises(_Kill):
            _run(config, tmp_path / "killed", data)
    _run(config, tmp_path / "killed", data, resume=True)
    assert _metrics(tmp_path / "killed") == _metrics(tmp_path / "whole")
    assert equal(_policies(tmp_path / "killed", config), _policies(tmp_path / "whole", config))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_goes_on_later(tmp_path, data, monkeypatch, number):
    config = _config(tmp_path)
    original = loop.run_chunk

    def signalled(*arguments, **keywords):
        state = original(*arguments, **keywords)
        if int(state.step) >= 5:
            signal.raise_signal(number)
        return state

    monkeypatch.setattr("sorl.train.session.FIRST_CHUNK", 5)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_chunk", signalled)
        ending = _run(config, tmp_path / "run", data)
    assert ending.signal == number and ending.step == 5
    assert runs.load_run(tmp_path / "run").step == 5
    assert _run(config, tmp_path / "run", data, resume=True).step == 30
    _run(config, tmp_path / "whole", data)
    assert _metrics(tmp_path / "run") == _metrics(tmp_path / "whole")
    assert equal(_policies(tmp_path / "run", config), _policies(tmp_path / "whole", config))


def test_a_signal_while_the_last_checkpoint_is_written_counts(tmp_path, data, monkeypatch):
    original = Checkpoints.close

    def close(checkpoints):
        if not checkpoints._read_only:
            signal.raise_signal(signal.SIGTERM)
        original(checkpoints)

    monkeypatch.setattr(Checkpoints, "close", close)
    assert _run(_config(tmp_path), tmp_path / "run", data).signal == signal.SIGTERM


def test_more_updates_go_on_where_a_finished_run_ended(tmp_path, data):
    short, long = _config(tmp_path, updates=20), _config(tmp_path, updates=30)
    _run(short, tmp_path / "run", data)
    _run(long, tmp_path / "run", data, resume=True)
    _run(long, tmp_path / "whole", data)
    assert _metrics(tmp_path / "run") == _metrics(tmp_path / "whole")
    assert equal(_policies(tmp_path / "run", short), _policies(tmp_path / "whole", long))


def test_a_bad_seed_keeps_its_last_checkpoint_and_the_other_goes_on(tmp_path, data, capsys):
    """A learning rate beyond all measure blows up at some step; each seed at its own."""
    agent = dataclasses.replace(synthetic.agent(), learning_rate=1e12)
    config = dataclasses.replace(_config(tmp_path, updates=24, checkpoint_interval=2, log_interval=4), agent=agent)
    ending = _run(config, tmp_path / "run", data)
    assert ending.bad_seeds
    message = capsys.readouterr().err
    for seed, step in ending.bad_seeds.items():
        assert f"Seed {seed} is not trained further: its losses were not finite at update {step}" in message
    assert all(np.isfinite(leaf).all() for leaf in _policies(tmp_path / "run", config))
    assert runs.load_run(tmp_path / "run").bad_seeds == tuple(sorted(ending.bad_seeds))
    rows = read_metrics(tmp_path / "run")
    assert all(row["step"] <= ending.bad_seeds.get(int(row["seed"]), 24) for row in rows)


def test_values_that_the_rewards_do_not_allow_are_warned_of_once_and_recorded(tmp_path, data, capsys, monkeypatch):
    """Rewards of 0 allow the value 0 and nothing else, which no network gives."""
    train = dataclasses.replace(data.train, rewards=jax.numpy.zeros_like(data.train.rewards))
    data = dataclasses.replace(data, train=train)
    monkeypatch.setattr("sorl.train.value_range.TOLERANCE", 0.0)
    config = _config(tmp_path)
    _run(dataclasses.replace(config, updates=20), tmp_path / "run", data)
    message = capsys.readouterr().err
    for seed in config.seeds:
        assert message.count(f"Seed {seed}: training/") == 1 and message.count(f"Seed {seed} is not to be trusted") == 1
    assert "at update 10, but the data's rewards allow only 0 to 0" in message
    assert all(row["training/value_excess"] > 0 for row in read_metrics(tmp_path / "run"))
    _run(config, tmp_path / "run", data, resume=True)
    message = capsys.readouterr().err
    assert "Seed 0: training/" not in message and message.count("range that the data's rewards allow at update 10") == 2


def test_values_inside_are_recorded_and_nothing_is_said(tmp_path, data, capsys):
    """Rewards of -1000 and 1000 allow all that untrained networks give."""
    rewards = 1000.0 * (-1.0) ** jax.numpy.arange(len(data.train.rewards))
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, rewards=rewards))
    _run(_config(tmp_path, updates=10), tmp_path / "run", data)
    assert [row["training/value_excess"] for row in read_metrics(tmp_path / "run")] == [0.0, 0.0]
    assert "Seed" not in capsys.readouterr().err


def test_a_run_directory_is_never_overwritten(tmp_path, data):
    config = _config(tmp_path, updates=1)
    _run(config, tmp_path / "run", data)
    with pytest.raises(FileExistsError, match="holds a run already"):
        _run(config, tmp_path / "run", data)


def test_load_run_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        runs.load_run(tmp_path)
    config = _config(tmp_path)
    runs.create(tmp_path / "run", config)
    with pytest.raises(FileNotFoundError, match="holds no policy yet; wait for the first checkpoint, or continue"):
        runs.load_run(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="no policy; continue the run with .* --resume, which writes them"):
        runs.load_run(tmp_path / "run")
    # The units of a run with several phases are those of the first, and only its policies have them.
    monkeypatch.setattr(runs, "phases", lambda directory: [{}, {}])
    with pytest.raises(FileNotFoundError, match="holds no policy; restore one from a copy"):
        runs.load_run(tmp_path / "run")


def test_the_agent_type_survives(tmp_path, data):
    config = _config(tmp_path, updates=1)
    _run(config, tmp_path / "run", data)
    assert isinstance(runs.load_run(tmp_path / "run").agent, Sorl)
