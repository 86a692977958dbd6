"""`python -m sorl.sweep`: trains the runs of a grid, and `python -m sorl.sweep paper` those of the paper's table."""

import dataclasses
import inspect
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sorl.agents import PAPERS_METHODS
from sorl.agents.registry import word
from sorl.sweep.drive import drive
from sorl.sweep.engines.interface import Engine
from sorl.sweep.grid import PAPER, Grid, PlannedRun, expand, with_joined_options
from sorl.sweep.plan import check_plan, grid_of_file, write_plan
from sorl.system import command_line, entry
from sorl.system.locks import exclusive
from sorl.system.ranges import refuse_outside


PROG = "python -m sorl.sweep"


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """Where the runs are trained."""

    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine; ray: tasks of a Ray cluster (pip install 'sorl[cluster]')."""
    jobs: int = 1
    """With the local engine: number of runs at a time, each on its share of the CPU cores."""
    address: str | None = None
    """With ray: address of a cluster to join, such as 10.0.0.1:6379, or auto for the one on this machine; default: a
    cluster is started here, which ends with the command."""
    num_cpus: float = 1.0
    """With ray: CPUs of each run. The processes of its evaluations are as many at most."""
    num_gpus: float = 0.0
    """GPUs of each run, which trains on one at most; with a fraction, runs share one."""
    retries: int = 3
    """Number of times that a run is started again after it, or its node, was killed."""

    def __post_init__(self):
        refuse_outside(self, jobs=(1, 4096), num_cpus=(0.01, 4096.0), num_gpus=(0.0, 1.0), retries=(0, 1000))
        if self.engine == "local" and self.address is not None:
            raise ValueError("--address is that of a Ray cluster; add --engine ray, or leave it out.")

    @property
    def workers(self) -> int | None:
        """The most processes that play an evaluation of a run; None: as its own options say."""
        return max(1, int(self.num_cpus)) if self.engine == "ray" else None

    def make(self) -> Engine:
        """Creates the engine; raises a `ValueError`, one sentence, if it cannot be had."""
        if self.engine == "ray":
            from sorl.sweep.engines.ray import RayEngine

            return RayEngine(self.address, cpus=self.num_cpus, gpus=self.num_gpus)
        from sorl.sweep.engines.local import LocalEngine

        return LocalEngine(self.jobs, self.num_gpus)


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains every run of a grid of agents, environments, seeds and options; the same command continues it.

    Finished runs are never repeated, and a failed one does not stop the others. Other commands: `paper` (the same with
    the methods, tasks and seeds of the paper's table), `status DIR`, `results DIR`, and `submit --slurm`.
    """

    out: Path = Path("runs/sweep")
    """Directory of the sweep, with a directory for each run."""
    config: Path | None = None
    """TOML or JSON file with the grid, such as the sweep.json of another sweep; other options override it; default:
    none."""
    grid: Annotated[Grid, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Grid)
    """What to train."""
    where: Annotated[EngineOptions, tyro.conf.arg(name="")] = dataclasses.field(default_factory=EngineOptions)
    """Where to train."""
    extend: bool = False
    """Add these runs to the sweep in --out."""
    dry_run: bool = False
    """List the runs, the source of their settings, and an estimate of time and memory from a short measurement."""
    measure: bool = True
    """Measure for --dry-run."""


def main(config: Config, words: Sequence[str] = ()) -> int:
    """Trains what is missing and writes the tables; **returns** 1 if a run failed, else 0.

    **Arguments:** `words`, the command line, to print how to continue.
    """
    runs = expand(config.grid)
    if config.dry_run:
        from sorl.sweep.estimate import show

        show(runs, config.where.jobs, measure=config.measure)
        return 0
    return 0 if carry_out(config, runs, words) else 1


def carry_out(config: Config, runs: Sequence[PlannedRun], words: Sequence[str] = ()) -> bool:
    """Trains what is missing and writes the tables; **returns** whether all runs are finished without a flaw."""
    from sorl.sweep.results import write_results

    out = config.out.expanduser().absolute()
    status = f"{PROG} status {shlex.quote(str(config.out))}"
    busy = f"Another command works on the sweep in {config.out}; wait for it: {status}"
    with exclusive(out / ".sweep.lock", f"{busy}."):
        # A refusal comes before anything is written or started.
        check_plan(out, config.grid, runs, extend=config.extend)
        engine = config.where.make()
        planned = write_plan(out, config.grid, runs, extend=config.extend)
        print(f"Sweep directory: {out}", flush=True)
        try:
            complete = drive(out, planned, engine, retries=config.where.retries, workers=config.where.workers)
        except BaseException:
            print(f"Continue with:\n  {shlex.join([*PROG.split(), *words])}", flush=True)
            raise
        write_results(out)
    return complete


def parse(words: Sequence[str]) -> Config:
    """Parses the words behind `python -m sorl.sweep`; the first may be `run` or `paper`."""
    default: Any = Config()
    if words[:1] == ["paper"]:
        methods = tuple(word(agent) for agent in PAPERS_METHODS)
        grid = Grid(agents=methods, envs=(PAPER,), seeds=tuple(range(8)), group=8, preset="paper")
        default = Config(Path("runs/paper"), grid=grid)
    words = with_joined_options(words[1:] if words[:1] in (["paper"], ["run"]) else words)
    default = dataclasses.replace(default, grid=grid_of_file(words, PROG, default.grid))
    description = f"{inspect.getdoc(Config)}\n\n{entry.EXIT_CODES}"
    return command_line.parse(Config, words, prog=PROG, description=description, default=default)


def command() -> int:
    """Runs the command line."""
    return main(parse(sys.argv[1:]), sys.argv[1:])
