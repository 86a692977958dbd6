"""A job script for Slurm, run by a stand-in for `sbatch` that signals it and queues it again."""

import os
import shlex
import subprocess
import sys

import pytest

from sorl.runs.metrics import read_metrics
from sorl.runs.sweeps import read_plan
from sorl.sweep import submit
from sorl.sweep.drive import attempt
from sorl.sweep.ledger import exit_code, state_of

from .. import synthetic


SBATCH = """#!PYTHON
import os, pathlib, re, signal, subprocess, sys, time

script = pathlib.Path(sys.argv[1])
asked = dict(re.findall(r"^#SBATCH --([\\w-]+)=?(.*)$", script.read_text(), re.MULTILINE))
assert asked["signal"] == "USR1@120" and asked["requeue"] == "" and asked["time"] == "00:10:00"
first, last = map(int, asked["array"].split("%")[0].split("-"))
requeued, out = pathlib.Path(os.environ["REQUEUED"]), script.parents[1]
for task in range(first, last + 1):
    for restart in range(3):
        names = {"ARRAY_JOB_ID": 7, "ARRAY_TASK_ID": task, "RESTART_COUNT": restart}
        slurm = {f"SLURM_{name}": str(value) for name, value in names.items()}
        job = subprocess.Popen(["bash", str(script)], env=os.environ | slurm, stdout=subprocess.DEVNULL)
        if restart == 0:
            while not list(out.glob("*/*/*/checkpoints/0")) and job.poll() is None:
                time.sleep(0.02)
            job.send_signal(signal.SIGUSR1)
        code = job.wait()
        if not requeued.exists():
            break
        assert code == 138 and requeued.read_text() == f"requeue 7_{task}\\n"
        requeued.unlink()
print("Submitted batch job 7")
"""


@pytest.fixture
def words(tmp_path):
    synthetic.write_logs(tmp_path / "logs.npz")
    sizes = "--agent.hidden-sizes 8 --batch-size 4 --log-interval 500 --checkpoint-interval 500 --updates 1000"
    options = f"--data {tmp_path / 'logs.npz'} {sizes}"
    place = ["--out", str(tmp_path / "a sweep; it's 50%"), "--agents", "bc", "--time", "00:10:00"]
    return ["--slurm", *place, "--options", options]


@pytest.mark.slow
def test_a_job_that_is_signalled_is_queued_again_and_finishes(words, tmp_path, monkeypatch, capfd):
    commands = tmp_path / "commands"
    commands.mkdir()
    scontrol = '#!/bin/sh\necho "$@" > "$REQUEUED"\n'
    srun = '#!/bin/sh\nshift 2\nexec "$@"\n'  # in place of a real one, too
    for name, text in {"sbatch": SBATCH.replace("PYTHON", sys.executable), "scontrol": scontrol, "srun": srun}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("REQUEUED", str(tmp_path / "requeued"))
    config = submit.parse(words)
    submit.main(config)
    said = capfd.readouterr().out
    assert "Submitted batch job 7\nRuns submitted: 1; follow them with:\n  python -m sorl.sweep status '" in said
    (run,) = read_plan(config.out)[1]
    directory = config.out / run.directory
    assert state_of(directory, run).kind == "finished"
    assert [row["step"] for row in read_metrics(directory)] == [500, 1000]
    assert exit_code(directory) == 0 and "Stopped by SIGUSR1 at update" in (directory / "log.txt").read_text()
    submit.main(config)
    assert capfd.readouterr().out == "1 of 1 runs finished.\nThere is nothing to submit.\n"


def test_the_script_asks_for_what_is_given_and_lists_what_is_missing(words, tmp_path, capsys):
    more = ["--dry-run", "--gpus", "1", "--cpus", "8", "--memory", "16G", "--at-once", "3", "--seeds", "0", "1"]
    config = submit.parse([*words, *more])
    submit.main(config)
    script = config.out / "slurm" / "job.sh"
    assert f"submit it with:\n  sbatch {shlex.quote(str(script))}\n" in capsys.readouterr().out
    lines = script.read_text().splitlines()
    for line in ("array=0-1%3", "cpus-per-task=8", "gpus-per-task=1", "mem=16G", "requeue", "open-mode=append"):
        assert f"#SBATCH --{line}" in lines
    assert "#SBATCH --ntasks=1" in lines  # Slurm refuses GPUs per task without a number of tasks
    assert any("launcher=(srun --ntasks=1 --cpus-per-task=8)" in line for line in lines)
    (output,) = [shlex.split(line.partition("=")[2]) for line in lines if line.startswith("#SBATCH --output=")]
    assert output == [f"{script.parent}/%A_%a.log".replace("50%", "50%%")]
    (listed,) = config.out.glob("slurm/attempts-*.txt")
    assert f"mapfile -t attempts < {shlex.quote(str(listed))}" in lines
    attempts = listed.read_text().splitlines()
    assert len(attempts) == 2 and " " not in attempts[0] and "'" not in attempts[0]
    decoded = subprocess.run(["bash", "-c", 'printf %b "$0"', attempts[1]], capture_output=True, text=True).stdout
    (_, run) = read_plan(config.out)[1]
    assert decoded == attempt(config.out, run, 8).to_json()


def test_another_submission_leaves_the_list_of_waiting_jobs_alone(words, tmp_path):
    submit.main(config := submit.parse([*words, "--dry-run", "--seeds", "0"]))
    (first,) = config.out.glob("slurm/attempts-*.txt")
    before = first.read_text()
    submit.main(submit.parse([*words, "--dry-run", "--seeds", "0", "1", "--extend"]))
    assert first.read_text() == before and len([*config.out.glob("slurm/attempts-*.txt")]) == 2


def test_words_are_written_without_special_characters():
    assert submit.encoded("a-b.c/d=e") == "a-b.c/d=e"
    assert submit.encoded("it's; ü") == "it\\0047s\\0073\\0040\\0303\\0274"


def test_without_sbatch_the_script_is_named(words, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="There is no command sbatch here; run this on a login node"):
        submit.main(submit.parse(words))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--partition", "gpu; rm -rf /"], "partition is 'gpu; rm -rf /'; give it as Slurm does"),
        (["--no-slurm"], "There is no scheduler but Slurm"),
        (["--cpus", "0"], "cpus is 0"),
        (["--gpus", "2"], "gpus is 2; give a whole number from 0 to 1"),  # a run would leave one idle
        (["--time", "2"], "time is '2', and a run is asked to save two minutes before its limit; give"),
    ],
)
def test_what_no_script_may_hold_is_refused(words, more, message):
    with pytest.raises(ValueError, match=message):
        submit.parse([*words, *more])


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [
        ("90", 90),
        ("2:30", 2.5),
        ("01:30:00", 90),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("0-00:02:30", 2.5),
        ("0", None),
        ("UNLIMITED", None),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(limit, minutes):
    assert submit.minutes_of(limit) == minutes
