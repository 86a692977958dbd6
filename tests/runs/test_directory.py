"""A run directory is locked by one training, has no links, and is restored if a start fails."""

import errno
import json
import os
import shutil

import pytest

from sorl.config import presets
from sorl.config.json_form import to_json
from sorl.runs.directory import WRITTEN, sole_trainer
from sorl.train import __main__ as train, sinks

from .. import synthetic


TINY = ["--agent.hidden-sizes", "8", "--agent.critic-hidden-sizes", "8", "--agent.backprop-steps", "2", "--quiet"]
TINY += ["--batch-size", "8", "--no-compilation-cache", "--log-interval", "2", "--checkpoint-interval", "2"]


def test_what_a_failed_start_wrote_is_removed(tmp_path):
    directory = tmp_path / "runs" / "one"
    with pytest.raises(KeyboardInterrupt), sole_trainer(directory):
        (directory / "config.json").write_text("{}")
        (directory / "checkpoints" / "replaced").mkdir(parents=True)
        (directory / "checkpoints" / "0.orbax-checkpoint-tmp").mkdir()
        (directory / "policy-seed-0.sorl").write_text("written before its checkpoint failed")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failures", [2, 1000])
def test_a_checkpoint_that_is_still_written_does_not_hide_why_the_start_failed(tmp_path, monkeypatch, failures):
    left, remove = [failures], shutil.rmtree

    def busy(path):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOTEMPTY, "Directory not empty", "ocdbt.process_0")
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", busy)
    directory = tmp_path / "one"
    with pytest.raises(RuntimeError, match="the disk is full"), sole_trainer(directory):
        (directory / "checkpoints" / "0.orbax-checkpoint-tmp").mkdir(parents=True)
        raise RuntimeError("the disk is full")
    assert directory.exists() == (failures > 20)


def test_a_directory_that_was_there_keeps_what_was_in_it(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "versions.json").write_text("{}")
    (tmp_path / "policy-seed-1.sorl").write_text("mine")
    with pytest.raises(RuntimeError), sole_trainer(tmp_path):
        (tmp_path / "config.json").write_text("{}")
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "notes.txt",
        "policy-seed-1.sorl",
        "versions.json",
    ]


def test_a_run_that_has_begun_stays(tmp_path):
    directory = tmp_path / "run"
    with pytest.raises(RuntimeError), sole_trainer(directory):
        (directory / "config.json").write_text("{}")
        (directory / "checkpoints" / "0").mkdir(parents=True)
        raise RuntimeError
    assert (directory / "config.json").exists() and (directory / "checkpoints" / "0").exists()


def test_a_start_beside_another_training_touches_nothing_of_it(tmp_path):
    directory = tmp_path / "run"
    with sole_trainer(directory):
        (directory / "config.json").write_text("{}")
        with pytest.raises(BlockingIOError, match=f"Another process trains the run in {directory}; wait for it"):
            with sole_trainer(directory):
                pass
        assert sorted(os.listdir(directory)) == [".lock", "config.json"]


@pytest.mark.parametrize("name", [*WRITTEN, "policy-seed-3.sorl", "checkpoints/7"])
def test_a_link_among_a_runs_files_is_refused_and_not_followed(tmp_path, name):
    elsewhere, directory = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.write_text("precious")
    (directory / name).parent.mkdir(parents=True)
    (directory / name).symlink_to(elsewhere)
    with pytest.raises(OSError, match=rf"{directory / name} is a (symbolic )?link") as error:
        with sole_trainer(directory):
            pytest.fail("the directory was entered")
    assert "\n" not in str(error.value)
    assert elsewhere.read_text() == "precious" and (directory / name).is_symlink()


def test_the_directory_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with sole_trainer(tmp_path / "run"):
        assert (tmp_path / "disk" / ".lock").exists()


def _no_package(name, product, extra):
    raise ImportError(f"{product} needs {name}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "missing.npz"], "There is no file"),
        (["--data", "broken.npz"], "broken.npz"),
        (["--data", "logs.npz", "--wandb"], "needs wandb"),
        (["--data", "logs.npz", "--agent.discount", "2"], "discount"),
    ],
)
def test_a_failed_start_leaves_no_run_directory(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sinks, "_import", _no_package)
    synthetic.write_logs("logs.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "logs.npz").read_bytes()[:500])
    before = sorted(os.listdir())
    assert train.main([*arguments, *TINY]) == 2
    output = capsys.readouterr().err
    assert message in output and output.count("\n") == 1
    assert sorted(os.listdir()) == before


def test_a_failed_resume_leaves_the_run_as_it_was_and_moved_logs_continue(tmp_path, capsys):
    logs, moved, run = tmp_path / "logs.npz", tmp_path / "moved.npz", tmp_path / "run"
    synthetic.write_logs(logs)
    assert train.main(["--data", str(logs), "--run-dir", str(run), "--updates", "2", *TINY]) == 0
    again = ["--run-dir", str(run), "--resume", "--quiet", "--no-compilation-cache", "--updates", "4"]
    shutil.move(logs, moved)
    (run / ".policy-seed-0.sorl.999999999.tmp").write_text("of a process that was killed")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert train.main(again) == 2
    assert f"There is no file {logs}" in capsys.readouterr().err
    synthetic.write_logs(logs, seed=2, scale=0.5)
    assert train.main(again) == 2
    assert "give the same data, with --data if they moved, or add --new-phase" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert train.main([*again, "--data", str(moved)]) == 0
    assert not [path for path in run.iterdir() if path.name.endswith(".tmp")]


def test_a_resume_that_lacks_a_package_leaves_the_run_as_it_was(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    synthetic.write_logs(tmp_path / "logs.npz")
    begin = ["--data", str(tmp_path / "logs.npz"), "--run-dir", str(run), "--updates", "2", *TINY]
    assert train.main(begin) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr(sinks, "_import", _no_package)
    again = ["--run-dir", str(run), "--resume", "--quiet", "--no-compilation-cache", "--updates", "4", "--wandb"]
    assert train.main(again) == 2
    assert "needs wandb" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("other", [["--preset", "paper"], ["--config", "config.json"]])
def test_options_from_two_places_are_refused(tmp_path, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_json(presets.quickstart())))
    with pytest.raises(ValueError, match="leave out --config and --preset"):
        train.parse(["--run-dir", str(tmp_path), "--resume", *other])
    with pytest.raises(ValueError, match="--config and --preset are both sources of defaults"):
        train.parse(["--config", "config.json", "--preset", "quickstart"])


def test_the_options_of_a_run_of_several_phases_are_told_to_be_those_of_the_last(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_json(presets.quickstart())))
    path = tmp_path / "versions.json"
    path.write_text(json.dumps({"data": {"sha256": "0"}}))
    train.parse(["--config", str(tmp_path / "config.json")])  # one phase: no warning
    path.write_text(json.dumps({"data": {"sha256": "0"}, "phases": [{"from_step": 5, "data": {"sha256": "1"}}]}))
    with pytest.warns(UserWarning, match="had several phases, and config.json has the options of the last; train on"):
        train.parse(["--config", str(tmp_path / "config.json")])


def test_options_that_continue_a_run_need_one(capsys):
    for option in (["--from-step", "3"], ["--new-phase"]):
        assert train.main(option) == 2
        assert "--from-step and --new-phase continue a run; give --run-dir and --resume" in capsys.readouterr().err
    assert train.main(["--run-dir", "RUN", "--resume", "--new-phase"]) == 2
    assert "--new-phase continues on other data; give them as --data" in capsys.readouterr().err
