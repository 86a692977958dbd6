"""Data in which no episode is as long as a decision of the agent."""

from typing import Any

import numpy as np
import pytest

from sorl.agents import Sorl
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig
from sorl.train import __main__ as train
from sorl.train.members import Members
from sorl.train.trainer import initial
from sorl.train.whole_decisions import no_validation


def _write(path, steps: int) -> None:
    rows = 10 * steps
    np.savez(
        path,
        observations=np.arange(rows)[:, None] % 7,
        actions=np.linspace(-1, 1, rows)[:, None],
        rewards=-np.ones(rows),
        terminals=np.zeros(rows),
        timeouts=np.arange(rows) % steps == steps - 1,
    )


def _config(path, chunk: int, residence: Any = "device") -> TrainConfig:
    data = DataConfig(path=path, residence=residence)
    agent = Sorl(chunk=chunk, hidden_sizes=(4,), critic_hidden_sizes=(4,))
    return TrainConfig(env=None, agent=agent, data=data, evaluation=EvaluationConfig(interval=0), batch_size=4)


@pytest.mark.parametrize("residence", ["device", "host"])
def test_episodes_that_are_all_shorter_than_a_decision_are_refused(residence, tmp_path):
    # Nobody logged what followed the last of the four steps, so an episode has three transitions.
    _write(tmp_path / "logs.npz", 4)
    assert train.load_data(_config(tmp_path / "logs.npz", 3, residence)).train.longest == 3
    with pytest.raises(ValueError, match="longest training episode has 3 transitions, and a decision of Sorl has 4"):
        train.load_data(_config(tmp_path / "logs.npz", 4, residence))


def test_such_a_run_leaves_nothing(tmp_path, capsys):
    _write(tmp_path / "logs.npz", 4)
    words = ["--data", str(tmp_path / "logs.npz"), "--agent.chunk", "4", "--run-dir", str(tmp_path / "run")]
    assert train.main([*words, "--no-compilation-cache"]) == 2
    assert "give longer episodes, or a smaller --agent.chunk." in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()


def test_held_out_episodes_that_are_all_shorter_have_no_losses(tmp_path):
    _write(tmp_path / "logs.npz", 9)
    _write(tmp_path / "logs-val.npz", 4)
    config = _config(tmp_path / "logs.npz", 5)
    data = train.load_data(config)
    (warning,) = no_validation(config, data)
    assert "the longest held-out episode has 3 transitions, and a decision has 5 actions" in warning
    assert Members(config, data).validation_losses(initial(config, data.train)) == {}
    assert no_validation(_config(tmp_path / "logs.npz", 3), data) == []
