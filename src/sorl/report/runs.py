"""What a report reads of runs: their options, evaluations and grids, and which of them are the same method."""

import dataclasses
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sorl.agents import Budget
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig, read_config
from sorl.policy import bad_seeds
from sorl.runs.metrics import read_metrics
from sorl.runs.run import config_path, refuse_no_run
from sorl.statistics.intervals import Row, evaluation_rows
from sorl.system.files import read_json, read_rows
from sorl.train.cli import dashed
from sorl.train.value_range import Departure, departures


TABLE = ("training_seed", "inference_steps", "candidates", "successes", "episodes")
"""What a report needs of each row of `evaluation.json`."""

GRID = (
    *("seeds", "episodes", "inference_steps", "candidates", "success", "success_low", "success_high"),
    *("difference_low", "difference_high", "latency_ms", "remark"),
)
"""What a report needs of each pair of `scaling.json`."""

IRRELEVANT = ("env", "seeds", "evaluation", "data.path", "data.directory", "data.mirrors", "data.download")
"""Options, by dotted name, in which runs of one method may differ: they change neither what is learnt nor how."""


@dataclasses.dataclass(frozen=True)
class ReportedRun:
    """A run directory, read."""

    directory: Path
    config: TrainConfig
    versions: dict[str, Any]
    """Software, device and data (`versions.json`)."""
    metrics: list[dict[str, Any]]
    """Rows of `sorl.runs.metrics.read_metrics`."""
    table: list[dict[str, Any]]
    """Rows of `evaluation.json`, one for each seed and budget; empty if there is none."""
    pairs: list[dict[str, Any]]
    """Pairs of `scaling.json`; empty if there is none."""
    bad_seeds: tuple[int, ...] = ()
    """Seeds whose losses became non-finite; they are in none of the figures."""
    method: str = ""
    """The agent, and the options in which it differs from others of that agent in the report."""

    @property
    def task(self) -> str:
        """The environment's name, or that of the logs."""
        return self.config.env or str(self.config.data.path)

    @property
    def budget(self) -> Budget:
        """The first of those that it was evaluated at while it trained."""
        return self.config.budgets(final=False)[0]

    @property
    def evaluations(self) -> list[Row]:
        """Those while it trained, at `budget`: a row for each step and seed."""
        rows = evaluation_rows(self.metrics, self.config.evaluation.episodes, self.budget.noise_scale)
        sizes = self.budget.inference_steps, self.budget.candidates
        return [row for row in rows if (row["inference_steps"], row["candidates"]) == sizes]

    @property
    def departures(self) -> dict[int, Departure]:
        """Seeds whose values left what the data's rewards allow."""
        return departures(self.metrics)

    @property
    def command(self) -> str:
        """What makes the run again."""
        return f"python -m sorl.train --config {shlex.quote(str(config_path(self.directory)))} --run-dir NEW"

    @property
    def updates(self) -> int:
        """Updates made, by the last checkpoint or row of metrics."""
        return max([_last_checkpoint(self.directory), *(row["step"] for row in self.metrics)])

    @property
    def seeds(self) -> list[int]:
        """Training seeds that have an evaluation, or a row of the table."""
        found = [row["training_seed"] for row in [*self.evaluations, *self.table]]
        return [seed for seed in self.config.seeds if seed in found]


def read_runs(directories: Sequence[Path]) -> list[ReportedRun]:
    """Reads run directories and names their methods.

    Raises a `FileNotFoundError` for a directory that holds no run, and a `ValueError` for one that is given twice or
    if two runs of a method have a task and seed in common.
    """
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise ValueError("A run directory is given twice; give each once.")
    runs = _trained([_read(directory) for directory in directories])
    named = [dataclasses.replace(run, method=name) for run, name in zip(runs, method_names(runs), strict=True)]
    taken: dict[tuple[str, str, int], Path] = {}
    for run in named:
        for seed in run.seeds:
            other = taken.setdefault((run.method, run.task, seed), run.directory)
            if other != run.directory:
                raise ValueError(
                    f"{other} and {run.directory} are both {run.method} on {run.task} with seed {seed}; give one."
                )
    return named


def _read(directory: Path) -> ReportedRun:
    refuse_no_run(directory)
    versions, table, grid = (directory / name for name in ("versions.json", "evaluation.json", "scaling.json"))
    bad = bad_seeds(directory)
    metrics = read_metrics(directory) if (directory / "metrics.jsonl").exists() else []
    return ReportedRun(
        directory,
        read_config(config_path(directory)),
        read_json(versions) if versions.exists() else {},
        [row for row in metrics if row["seed"] not in bad],
        [row for row in _rows(table, "rows", TABLE, "sorl.evaluate") if row["training_seed"] not in bad],
        _rows(grid, "pairs", GRID, "sorl.scaling"),
        tuple(sorted(bad)),
    )


def read_runtime(path: Path) -> dict[str, Any]:
    """What `benchmarks/runtime.py` wrote; raises a `ValueError` for another file."""
    remedy = "write it again with benchmarks/runtime.py"
    found = read_json(path, remedy)
    if missing := {"updates", "decisions", "machine", "settings", "command"} - found.keys():
        raise ValueError(f"{path} has no {', '.join(sorted(missing))}; {remedy}.")
    return found


def _trained(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Those that made an update; one line names the others, whose start failed."""
    found = []
    for run in runs:
        if run.metrics or run.table or _last_checkpoint(run.directory) or any(run.directory.glob("policy-seed-*.sorl")):
            found.append(run)
        else:
            print(f"{run.directory} is left out: it was started and never trained.")
    if not found:
        raise ValueError("None of the runs was ever trained; give the directory of one that sorl.train finished.")
    return found


def _last_checkpoint(directory: Path) -> int:
    steps = [path.name for path in (directory / "checkpoints").glob("*") if path.name.isdecimal()]
    return max(map(int, steps), default=0)


def _rows(path: Path, key: str, columns: Sequence[str], module: str) -> list[dict[str, Any]]:
    remedy = f"run python -m {module} {shlex.quote(str(path.parent))} again"
    return read_rows(path, key, columns, remedy) if path.exists() else []


def method_names(runs: Sequence[ReportedRun]) -> list[str]:
    """The agent of each run, with those options that set runs of that agent on the same task apart.

    An option that differs only from task to task is part of a preset, and does not make another method.
    """
    options = [_options(run.config) for run in runs]
    apart: dict[str, set[str]] = defaultdict(set)
    for run, own in zip(runs, options, strict=True):
        for other_run, other in zip(runs, options, strict=True):
            if (_agent(run), run.task) == (_agent(other_run), other_run.task):
                apart[_agent(run)] |= {name for name in own if own[name] != other.get(name)}
    return [
        ", ".join([_agent(run), *(_named(name, own[name]) for name in sorted(apart[_agent(run)]))])
        for run, own in zip(runs, options, strict=True)
    ]


def scores(runs: Sequence[ReportedRun]) -> dict[str, dict[str, np.ndarray]]:
    """By method, then by task: each seed's success, the mean of its last three evaluations while it trained."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        seeds: dict[int, list[float]] = defaultdict(list)
        for row in sorted(run.evaluations, key=lambda row: row["step"]):
            seeds[row["training_seed"]].append(row["successes"] / row["episodes"])
        for successes in seeds.values():
            found[run.method][run.task].append(float(np.mean(successes[-3:])))
    return {method: {task: np.array(own) for task, own in tasks.items()} for method, tasks in found.items()}


def _agent(run: ReportedRun) -> str:
    return dashed(type(run.config.agent).__name__)


def _options(config: TrainConfig) -> dict[str, str]:
    """What may set methods apart, by dotted name."""
    found: dict[str, str] = {}

    def flatten(prefix: str, value: Any) -> None:
        if prefix in IRRELEVANT:
            return
        if isinstance(value, dict):
            for name, part in value.items():
                flatten(f"{prefix}.{name}" if prefix else name, part)
        else:
            found[prefix] = "x".join(map(str, value)) if isinstance(value, list) else str(value)

    flatten("", to_json(config))
    return found


def _named(option: str, value: str) -> str:
    name = option.rsplit(".", 1)[-1].replace("_", " ")
    return {"True": name, "False": f"no {name}"}.get(value, f"{name} {value}")
