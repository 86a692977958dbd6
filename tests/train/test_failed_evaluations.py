"""Workers that die, hang or fail in an evaluation cost a run its row, never its updates; a signal ends it soon."""

import json
import os
import re
import signal
import threading
import time

import pytest

from sorl.config.options import EvaluationConfig, TrainConfig
from sorl.data import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.environments.names import Task
from sorl.environments.pool import EnvironmentPool, EnvironmentWorkerError
from sorl.evaluate import __main__ as evaluate
from sorl.runs import run as runs
from sorl.runs.metrics import read_metrics
from sorl.runs.versions import record_versions
from sorl.scaling import __main__ as scaling
from sorl.train import __main__ as train
from sorl.train.checkpoints import Checkpoints
from sorl.train.failed_evaluations import EvaluationError, FailedEvaluations
from sorl.train.session import Session

from .. import scripted_simulator, synthetic
from ..reaching import AGENT, CUBE, make_run


PROVENANCE = {"source": "generated", "episodes": 9, "path": "-", "sha256": "-", "summary": {}}


@pytest.fixture
def fault(tmp_path, monkeypatch):
    """The file that says what goes wrong in the workers."""
    monkeypatch.setattr("sorl.train.session.CHUNK_SECONDS", 1e-9)  # one update a chunk
    (tmp_path / "simulator").mkdir()
    return scripted_simulator.install(tmp_path / "simulator", monkeypatch, Task.parse(CUBE).gymnasium_id)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The rows of a run in which nothing goes wrong; they do not depend on whether evaluations overlap training."""
    place = tmp_path_factory.mktemp("undisturbed")
    (place / "simulator").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        scripted_simulator.install(place / "simulator", patch, Task.parse(CUBE).gymnasium_id)
        run(place / "run", configuration())
    return read_metrics(place / "run")


@pytest.fixture
def once(fault, monkeypatch):
    """As `fault`, for one evaluation."""
    original = FailedEvaluations.add

    def add(failures, step, error):
        fault.unlink()
        return original(failures, step, error)

    monkeypatch.setattr(FailedEvaluations, "add", add)
    return fault


@pytest.fixture
def saved(monkeypatch):
    """The steps at which checkpoints are made."""
    steps, original = [], Checkpoints.save

    def save(checkpoints, step, *arguments, **options):
        steps.append(step)
        original(checkpoints, step, *arguments, **options)

    monkeypatch.setattr(Checkpoints, "save", save)
    return steps


@pytest.fixture
def pools(monkeypatch):
    """All pools that are made."""
    made, original = [], EnvironmentPool.__init__

    def init(pool, *arguments, **options):
        original(pool, *arguments, **options)
        made.append(pool)

    monkeypatch.setattr(EnvironmentPool, "__init__", init)
    return made


def configuration(*, overlap=False, updates=40, **evaluation):
    return TrainConfig(
        env=CUBE,
        agent=AGENT,
        updates=updates,
        batch_size=8,
        log_interval=4,
        checkpoint_interval=100,
        evaluation=EvaluationConfig(interval=10, episodes=3, overlap=overlap, **evaluation),
    )


def data():
    dataset = synthetic.dataset(observation_size=2, action_size=2)
    return LoadedData(dataset, None, Normalisation.identity(2, 2), PROVENANCE)


def run(directory, config, *, resume=False):
    if not resume:
        runs.create(directory, config)
    record_versions(directory, config, PROVENANCE)
    return Session(config, directory, data(), resume=resume, quiet=True).run()


def without(rows, step):
    """The rows but that of the evaluation at a step."""
    return [row for row in rows if row["step"] != step or not any(name.startswith("evaluation") for name in row)]


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize(
    "kind, said", [("die", "died; give fewer workers"), ("fail", "failed: OSError: the simulator")]
)
def test_a_failed_evaluation_is_a_missing_row(undisturbed, once, saved, tmp_path, capsys, overlap, kind, said):
    once.write_text(kind)
    ending = run(tmp_path / "run", configuration(overlap=overlap))
    assert saved == [0, 10, 40] and ending.step == 40
    assert read_metrics(tmp_path / "run") == without(undisturbed, 10)
    recorded = json.loads((tmp_path / "run" / "failed_evaluations.json").read_text())
    assert recorded == {"10": ending.failed_evaluations[10]} and said in recorded["10"]
    (message,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert message.startswith("warning: the evaluation at update 10 failed and has no row: Worker ")


def test_two_failures_in_a_row_stop_the_run_which_goes_on_later(undisturbed, fault, saved, tmp_path):
    fault.write_text("die")
    message = (
        r"The last 2 evaluations failed \(at update 20: .* died.*\), so the run stopped at update 20, which is saved"
    )
    with pytest.raises(EvaluationError, match=message):
        run(tmp_path / "run", configuration())
    assert saved == [0, 10, 20]
    fault.unlink()
    ending = run(tmp_path / "run", configuration(), resume=True)
    assert list(ending.failed_evaluations) == [10] and ending.step == 40
    assert read_metrics(tmp_path / "run") == without(undisturbed, 10)


def test_a_failure_that_is_played_again_from_before_is_forgotten(once, tmp_path):
    once.write_text("die")
    assert list(run(tmp_path / "run", configuration(updates=10)).failed_evaluations) == [10]
    for start in (0, None):
        ending = Session(
            configuration(updates=10), tmp_path / "run", data(), resume=True, from_step=start, quiet=True
        ).run()
        assert ending.failed_evaluations == {}
    assert json.loads((tmp_path / "run" / "failed_evaluations.json").read_text()) == {}


def test_rows_that_are_there_are_not_played_again(fault, pools, tmp_path):
    run(tmp_path / "run", configuration(updates=10))
    timings = (tmp_path / "run" / "timings.jsonl").read_text()
    pools.clear()
    fault.write_text("die")
    ending = run(tmp_path / "run", configuration(updates=10), resume=True)
    assert ending.failed_evaluations == {} and pools == []
    assert (tmp_path / "run" / "timings.jsonl").read_text() == timings


def test_a_reason_is_a_sentence(tmp_path):
    failures = FailedEvaluations(tmp_path, None)
    assert failures.add(10, EnvironmentWorkerError("Worker 3 died; give fewer workers.")).startswith("Worker 3 died;")
    full = OSError(28, "No space left on device", "/dev/shm")
    assert failures.add(20, full).startswith("/dev/shm: No space left on device; free some disk space")
    assert failures.add(30, TypeError("one\ntwo")) == "TypeError: one two."


def test_a_damaged_record_of_failures_is_one_sentence(tmp_path):
    path = tmp_path / "failed_evaluations.json"
    for text in ("", "[]", '{"ten": "died"}', '{"10": 3}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))} .*\\.$"):
            FailedEvaluations(tmp_path, 10)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_signal_ends_a_run_whose_worker_hangs(fault, pools, tmp_path, overlap):
    fault.write_text("hang")

    def signal_soon():
        while not (pools and pools[0]._under_way):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=signal_soon).start()
    ending = run(tmp_path / "run", configuration(overlap=overlap, updates=10))
    assert (ending.step, ending.signal, ending.failed_evaluations) == (10, signal.SIGTERM, {})
    assert pools[0].closed
    fault.unlink()
    assert run(tmp_path / "run", configuration(overlap=overlap, updates=10), resume=True).failed_evaluations == {}
    assert "evaluation/success/M1N1" in read_metrics(tmp_path / "run")[-1]


def test_a_hung_worker_costs_a_row(once, tmp_path):
    once.write_text("hang")
    ending = run(tmp_path / "run", configuration(updates=20, step_timeout=2.0))
    assert "did not answer within 2 seconds" in ending.failed_evaluations[10] and ending.step == 20


@pytest.fixture
def options(fault, tmp_path, monkeypatch):
    """The command line of a run of 10 updates in `tmp_path / "run"`."""
    small = configuration(updates=10, final_inference_steps=(1,), final_candidates=(1,))
    (tmp_path / "options.json").write_text(json.dumps(train.to_json(small)))
    monkeypatch.setattr(train, "load_data", lambda config, normalisation=None: data())
    monkeypatch.setattr(train.summary, "text", lambda summary: "")
    return ["--config", str(tmp_path / "options.json"), "--run-dir", str(tmp_path / "run"), "--quiet"]


def test_the_command_says_what_is_missing_and_resume_makes_up_for_it(once, options, tmp_path, capsys):
    once.write_text("die")
    assert train.main(options) == 1
    printed = capsys.readouterr().out
    assert "The evaluation at update 10 failed and has no row: Worker " in printed
    resume = f"python -m sorl.train --run-dir {tmp_path / 'run'} --resume"
    assert printed.endswith(f"Repeat the evaluation at update 10 with:\n  {resume}\n")
    assert (tmp_path / "run" / "evaluation.csv").exists()
    assert train.main(resume.split()[3:]) == 0
    assert "evaluation/success/M1N1" in read_metrics(tmp_path / "run")[-1]
    assert "failed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "error, told",
    [
        (EnvironmentWorkerError("Worker 3 died."), "Worker 3 died."),
        (OSError(28, "No space left on device", "a.csv"), "a.csv: No space left on device; free some disk space"),
    ],
)
def test_a_final_table_that_fails_leaves_a_finished_run(options, tmp_path, capsys, monkeypatch, error, told):
    def fails(config):
        raise error

    directory = tmp_path / "one run"
    options[options.index("--run-dir") + 1] = str(directory)
    monkeypatch.setattr(evaluate, "main", fails)
    assert train.main(options) == 1
    said = capsys.readouterr().err
    assert f"error: the table over budgets was not made, but the run is finished and saved: {told}" in said
    assert f"python -m sorl.evaluate '{directory}' --episodes 8\n" in said
    assert runs.load_run(directory).step == 10


@pytest.mark.parametrize("command", [evaluate, scaling])
def test_commands_name_a_hung_worker_and_end(fault, pools, tmp_path, command):
    fault.write_text("hang")
    directory = make_run(tmp_path / "run", seeds=(3,))
    config = command.Config(directory, inference_steps=(1,), candidates=(1,), episodes=2, step_timeout=2.0)
    with pytest.raises(
        EnvironmentWorkerError, match=r"^Worker \d of .* did not answer within 2 seconds and was killed"
    ):
        command.main(config)
    assert all(pool.closed for pool in pools) and pools
