"""`--start-or-resume` starts a run, continues it, and refuses another configuration."""

import signal
import subprocess
import sys
import time

import pytest

from sorl.config.json_form import to_json
from sorl.config.options import read_config
from sorl.runs.metrics import read_metrics
from sorl.system.files import write_json
from sorl.train import __main__ as train
from sorl.train.cli import with_absolute_paths

from .. import synthetic


@pytest.fixture
def command(tmp_path):
    synthetic.write_logs(tmp_path / "logs.npz")
    sizes = ["--agent.hidden-sizes", "8", "--batch-size", "4", "--log-interval", "5", "--checkpoint-interval", "5"]
    place = ["--run-dir", str(tmp_path / "run"), "--start-or-resume", "--quiet", "--no-compilation-cache"]
    return ["agent:bc", "--data", str(tmp_path / "logs.npz"), *sizes, *place]


def test_the_same_command_starts_continues_and_extends_a_run(command, tmp_path, capsys):
    run = tmp_path / "run"
    assert train.main([*command, "--updates", "10"]) == 0
    rows = (run / "metrics.jsonl").read_bytes()
    assert train.main([*command, "--updates", "10"]) == 0
    assert (run / "metrics.jsonl").read_bytes() == rows
    assert train.main([*command, "--updates", "15"]) == 0
    assert [row["step"] for row in read_metrics(run)] == [5, 10, 15] and read_config(run / "config.json").updates == 15

    capsys.readouterr()
    for words, different in ((["--updates", "10"], "updates"), (["--updates", "15", "--seeds", "3"], "seeds")):
        assert train.main([*command, *words]) == 2
        assert capsys.readouterr().err == (
            f"error: The run in {run} was started with other options ({different}); give the same, or another "
            "--run-dir.\n"
        )
    assert [row["step"] for row in read_metrics(run)] == [5, 10, 15]


def test_it_needs_a_directory_and_excludes_resume(command):
    with pytest.raises(ValueError, match="--start-or-resume needs the directory of the run; give --run-dir too"):
        train.parse(["--start-or-resume"])
    with pytest.raises(ValueError, match="leave --resume out"):
        train.parse([*command, "--resume"])


def test_relative_paths_are_those_that_the_run_was_started_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["agent:bc", "--data", "logs.csv", "--data.columns", "names.toml", "--run-dir", "run", "--start-or-resume"]
    config, options, _ = train.parse(words)
    assert not options.resume
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", to_json(with_absolute_paths(config)))
    assert train.parse(words)[1].resume


@pytest.mark.slow
def test_sigusr1_saves_and_the_same_command_continues(command, tmp_path):
    words = [*command, "--updates", "20000", "--log-interval", "20000", "--checkpoint-interval", "20000"]
    start = [sys.executable, "-m", "sorl.train", *words]
    process = subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (tmp_path / "run" / "checkpoints" / "0").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGUSR1, output
    assert "Stopped by SIGUSR1 at update " in output and read_metrics(tmp_path / "run") == []
    assert train.main(words) == 0
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [20000]
