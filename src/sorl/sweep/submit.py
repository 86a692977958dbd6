"""`python -m sorl.sweep submit --slurm`: one array job of Slurm for the runs of a sweep that are not finished."""

import dataclasses
import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from sorl.runs.sweeps import SweepRun
from sorl.sweep.drive import attempt
from sorl.sweep.grid import Grid, expand, with_joined_options
from sorl.sweep.plan import grid_of_file, write_plan
from sorl.sweep.table import counts, read_states
from sorl.system import command_line
from sorl.system.files import make_directory, whole_file
from sorl.system.locks import exclusive
from sorl.system.ranges import refuse_outside


PROG = "python -m sorl.sweep submit"
MAX_REQUEUES = 1000
"""The most times that one run is queued again."""

LEAST_MINUTES = 3
"""The shortest time limit: with a shorter one, a run is queued again before it has made an update."""

SCRIPT = """#!/usr/bin/env bash
#SBATCH --job-name=sorl-sweep
#SBATCH --array={array}
#SBATCH --time={time}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
{more}#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={logs}

# One task of the array trains one run. Two minutes before the time limit, the run gets SIGUSR1, saves, and is queued
# again; so it is by Slurm itself if a node fails or the job is preempted. Each start continues from the last
# checkpoint.
set -u
mapfile -t attempts < {attempts}
attempt=$(printf '%b' "${{attempts[$SLURM_ARRAY_TASK_ID]}}")

# Slurm signals the steps that srun starts, not this script; whatever reaches the script is passed on. srun does not
# inherit the number of cores from version 22.05 on, and may bind a task to one.
launcher=()
if command -v srun > /dev/null; then launcher=(srun --ntasks=1 --cpus-per-task={cpus}); fi
"${{launcher[@]}}" {python} -m sorl.sweep.attempt "$attempt" &
child=$!
trap 'kill -USR1 "$child" 2> /dev/null' USR1 TERM
wait "$child"
while kill -0 "$child" 2> /dev/null; do wait "$child"; done
wait "$child"  # a trap ends a wait with a code of its own
code=$?

if [ "$code" -eq 138 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes the job script of an array job, a task for each run of the sweep that is not finished, and submits it.

    The script and the list of its runs are in DIR/slurm. The same command submits what is missing; wait until the queue
    has no task of the sweep. Follow it with `python -m sorl.sweep status DIR`.
    """

    slurm: bool = True
    """Submit to Slurm with sbatch; there is no other scheduler yet."""
    out: Path = Path("runs/sweep")
    """Directory of the sweep, which all nodes share."""
    config: Path | None = None
    """TOML or JSON file with the grid; other options override it; default: none."""
    grid: Annotated[Grid, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Grid)
    """What to train."""
    time: str = "04:00:00"
    """Time limit of one job, in Slurm's form; a longer run is continued by the next job."""
    cpus: int = 4
    """CPU cores of each run; the processes of its evaluations are as many at most."""
    gpus: int = 0
    """GPUs of each run, which trains on one at most."""
    memory: str | None = None
    """Memory of each run, such as 16G; default: the partition's."""
    partition: str | None = None
    """Partition; default: Slurm's."""
    account: str | None = None
    """Account; default: Slurm's."""
    at_once: int | None = None
    """The most runs at a time; default: no limit."""
    extend: bool = False
    """Add these runs to the sweep in --out."""
    dry_run: bool = False
    """Write the script without submitting it."""

    def __post_init__(self):
        refuse_outside(self, cpus=(1, 4096), gpus=(0, 1), at_once=(1, 100_000))
        if not self.slurm:
            raise ValueError("There is no scheduler but Slurm; give --slurm.")
        for name in ("time", "memory", "partition", "account"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[\w.:,-]+", value, re.ASCII):
                raise ValueError(f"{name} is {value!r}; give it as Slurm does, of letters, digits and _ . : , - only.")
        minutes = minutes_of(self.time)
        if minutes is not None and minutes < LEAST_MINUTES:
            raise ValueError(
                f"time is {self.time!r}, and a run is asked to save two minutes before its limit; give at least "
                f"00:0{LEAST_MINUTES}:00."
            )


def main(config: Config) -> None:
    """Writes the plan and the script, and submits it."""
    out, runs = config.out.expanduser().absolute(), expand(config.grid)
    with exclusive(out / ".sweep.lock", f"Another command works on the sweep in {config.out}; wait for it."):
        planned = write_plan(out, config.grid, runs, extend=config.extend)
        states = read_states(out, planned)
        print(f"{counts(states)}.")
        missing = [run for run in planned if states[run.directory].kind not in ("finished", "running")]
        if not missing:
            print("There is nothing to submit.")
            return
        script = write_script(config, out, missing)
    if config.dry_run:
        print(f"Wrote {script}; submit it with:\n  sbatch {shlex.quote(str(script))}")
        return
    try:
        done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(
            f"There is no command sbatch here; run this on a login node of the cluster, or submit {script} there."
        ) from None
    if done.returncode:
        raise ValueError(f"sbatch refused {script}: {done.stderr.strip() or f'exit code {done.returncode}'}.")
    print(done.stdout.strip())
    print(f"Runs submitted: {len(missing)}; follow them with:\n  python -m sorl.sweep status {shlex.quote(str(out))}")


def write_script(config: Config, out: Path, runs: Sequence[SweepRun]) -> Path:
    """Writes the job script and the list of the attempts at the runs, a line each; **returns** the script's path."""
    directory = out / "slurm"
    make_directory(directory)
    listed = "".join(encoded(attempt(out, run, config.cpus).to_json()) + "\n" for run in runs)
    # Another list of runs gets another name, because jobs that wait in the queue read their list only when they start.
    attempts = directory / f"attempts-{hashlib.sha256(listed.encode()).hexdigest()[:12]}.txt"
    with whole_file(attempts) as file:
        file.write(listed)
    limit = "" if config.at_once is None else f"%{config.at_once}"
    asked = {"gpus-per-task": config.gpus or None, "mem": config.memory}
    asked |= {"partition": config.partition, "account": config.account}
    path = directory / "job.sh"
    with whole_file(path) as file:
        file.write(
            SCRIPT.format(
                array=f"0-{len(runs) - 1}{limit}",
                time=config.time,
                cpus=config.cpus,
                more="".join(f"#SBATCH --{name}={value}\n" for name, value in asked.items() if value is not None),
                logs=_log_path(directory),
                attempts=shlex.quote(str(attempts)),
                python=shlex.quote(sys.executable),
                requeues=MAX_REQUEUES,
            )
        )
    return path


def minutes_of(limit: str) -> float | None:
    """The minutes of a time limit in Slurm's form, such as 90, 1:30:00 or 2-12; None without a limit."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", limit):
        return None
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    # The first number is of hours behind days and if there are three, else of minutes.
    hours, minutes, seconds = [*(parts if days or len(parts) == 3 else [0, *parts]), 0, 0][:3]
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds / 60 or None


def encoded(text: str) -> str:
    """A text without white space or special characters, as `printf %b` decodes it."""
    return re.sub(rb"[^\w./=,:+-]", lambda found: rb"\0%03o" % ord(found[0]), text.encode()).decode()


def _log_path(directory: Path) -> str:
    """The path of a task's output for an #SBATCH line, in which Slurm splits words as a shell does and replaces %x."""
    return shlex.quote(f"{directory}/".replace("%", "%%") + "%A_%a.log")


def parse(words: Sequence[str]) -> Config:
    """Parses the words behind `python -m sorl.sweep submit`."""
    words = with_joined_options(words)
    return command_line.parse(Config, words, prog=PROG, default=Config(grid=grid_of_file(words, PROG, Grid())))


def command() -> None:
    """Runs the command line."""
    main(parse(sys.argv[2:]))
