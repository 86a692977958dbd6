"""Evaluations while training goes on: a run writes the same as one that waits for them, and a signal loses nothing."""

import json
import signal
import threading
import time

import jax
import numpy as np
import pytest

from sorl import load_policy
from sorl.config.options import EvaluationConfig, TrainConfig
from sorl.data import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.environments import named
from sorl.runs import run as runs
from sorl.runs.metrics import read_metrics
from sorl.runs.versions import record_versions
from sorl.statistics.rows import evaluation_rows
from sorl.train import background_evaluation, loop as training
from sorl.train.checkpoints import Checkpoints
from sorl.train.session import Session

from .. import synthetic
from ..reaching import AGENT, CUBE, Pool, Reaching, Seldom


@pytest.fixture(autouse=True)
def reaching(monkeypatch):
    monkeypatch.setattr(named, "OgbenchEnvironment", Reaching)
    monkeypatch.setattr(background_evaluation, "EnvironmentPool", Pool)
    monkeypatch.setattr("sorl.train.session.CHUNK_SECONDS", 1e-9)  # one update a chunk


def train(directory, *, overlap, resume=False, updates=40, checkpoint_interval=20):
    evaluation = EvaluationConfig(interval=10, episodes=3, overlap=overlap)
    config = TrainConfig(
        env=CUBE,
        agent=AGENT,
        seeds=(3, 5),
        updates=updates,
        batch_size=8,
        log_interval=4,
        checkpoint_interval=checkpoint_interval,
        evaluation=evaluation,
    )
    provenance = {"source": "generated", "episodes": 9, "path": "-", "sha256": "-"}
    dataset = synthetic.dataset(observation_size=2, action_size=2)
    data = LoadedData(dataset, None, Normalisation.identity(2, 2), provenance)
    if not resume:
        runs.create(directory, config)
    record_versions(directory, config, provenance)
    return Session(config, directory, data, resume=resume, quiet=True).run()


def results(directory):
    """All that must not depend on when an evaluation plays."""
    with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        latest = checkpoints.latest_step()
    policies = [load_policy(runs.policy_path(directory, seed)).digest for seed in (3, 5)]
    return (directory / "metrics.jsonl").read_bytes(), latest, policies


class Gate:
    """Holds every step of the simulator until it is opened."""

    def __init__(self, monkeypatch):
        self.open = threading.Event()
        step = Reaching.step

        def waits(environment, action):
            assert self.open.wait(60)
            return step(environment, action)

        monkeypatch.setattr(Reaching, "step", waits)


def test_a_run_that_trains_on_meanwhile_writes_the_same(tmp_path, monkeypatch):
    train(tmp_path / "waits", overlap=False)
    gate, steps = Gate(monkeypatch), []
    original = training.run_chunk

    def chunk(*arguments, **keywords):
        state = original(*arguments, **keywords)
        steps.append(int(state.step))
        if len(steps) == 17:
            gate.open.set()  # training has gone on by seven updates while the first evaluation waited
        return state

    monkeypatch.setattr(training, "run_chunk", chunk)
    train(tmp_path / "overlaps", overlap=True)
    assert steps[:17] == list(range(1, 18))
    assert results(tmp_path / "overlaps") == results(tmp_path / "waits")
    timings = [json.loads(line) for line in (tmp_path / "overlaps" / "timings.jsonl").read_text().splitlines()]
    first = next(row for row in timings if "evaluation_seconds" in row)
    assert first["step"] == 10 and 0 <= first["evaluation_stall_seconds"] <= first["evaluation_seconds"]


def test_a_signal_goes_back_to_the_evaluation_that_plays_and_resume_plays_it_again(tmp_path, monkeypatch):
    train(tmp_path / "whole", overlap=False)
    original = training.run_chunk
    with monkeypatch.context() as patch:
        gate = Gate(patch)

        def chunk(*arguments, **keywords):
            state = original(*arguments, **keywords)
            if int(state.step) == 15:
                signal.raise_signal(signal.SIGTERM)
                # The thread is let go once the run has begun to wait for it.
                threading.Thread(target=lambda: (time.sleep(0.5), gate.open.set())).start()
            return state

        patch.setattr(training, "run_chunk", chunk)
        ending = train(tmp_path / "run", overlap=True)
    assert (ending.step, ending.signal) == (10, signal.SIGTERM)
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [4, 4, 8, 8]
    train(tmp_path / "run", overlap=True, resume=True)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_without_being_told_it_waits_on_a_cpu(tmp_path, monkeypatch):
    threads = []
    step = Reaching.step

    def noted(environment, action):
        threads.append(threading.current_thread())
        return step(environment, action)

    monkeypatch.setattr(Reaching, "step", noted)
    train(tmp_path / "run", overlap=None, updates=10)
    assert jax.default_backend() == "cpu" and set(threads) == {threading.main_thread()}
    assert np.isin([row["step"] for row in read_metrics(tmp_path / "run")], [4, 8, 10]).all()


def test_once_a_success_was_reported_a_missing_one_counts_as_none_also_after_a_resume(tmp_path, monkeypatch):
    def begin(evaluations, state, policies):
        monkeypatch.setattr(Seldom, "easy", int(state.step) == 20)
        return original(evaluations, state, policies)

    original = background_evaluation.Evaluations.begin
    monkeypatch.setattr(background_evaluation.Evaluations, "begin", begin)
    monkeypatch.setattr(named, "OgbenchEnvironment", Seldom)
    train(tmp_path / "whole", overlap=False, checkpoint_interval=10)
    train(tmp_path / "run", overlap=False, checkpoint_interval=10, updates=25)
    train(tmp_path / "run", overlap=False, checkpoint_interval=10, resume=True)
    rows = [row for row in read_metrics(tmp_path / "run") if "evaluation/episode_length/M2N1" in row]
    found = {(row["step"], row.get("evaluation/success/M2N1")) for row in rows}
    assert found == {(10, None), (20, 1.0), (30, 0.0), (40, 0.0)}
    read = {(row["step"], row["successes"]) for row in evaluation_rows(rows, 3)}
    assert read == {(10, 0), (20, 3), (30, 0), (40, 0)}
    # The returns, of up to four, are above any success, but never better.
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([20, 30, 40], 20)
    evaluations = [row for row in read_metrics(tmp_path / "whole") if "evaluation/episode_length/M2N1" in row]
    assert evaluations == rows
