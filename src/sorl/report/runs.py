"""Reads the runs of a report, and gives each the name of its method."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sorl.assess.record import read_assessment
from sorl.config.options import read_config
from sorl.policy import bad_seeds
from sorl.report.methods import method_names
from sorl.report.run import ReportedRun
from sorl.runs.directory import POLICIES, assessment_path
from sorl.runs.metrics import read_metrics
from sorl.runs.run import config_path, refuse_no_run
from sorl.statistics.missing_success import reports_success, with_success
from sorl.statistics.rows import Row, member_of, settings, settings_text
from sorl.system.files import read_json, read_rows


TABLE = ("training_seed", "inference_steps", "candidates", "successes", "episodes")
"""The columns of `evaluation.json` that a report needs."""

GRID = (
    *("seeds", "episodes", "inference_steps", "candidates", "success", "success_low", "success_high"),
    *("difference_low", "difference_high", "latency_ms", "remark"),
)
"""The columns of `scaling.json` that a report needs."""


def read_runs(directories: Sequence[Path], methods: Sequence[str] | None = None) -> list[ReportedRun]:
    """Reads run directories and names their methods; a population makes a run for each combination of values.

    **Arguments:** `methods`, the name of each run's method (None: `method_names`).

    Raises a `FileNotFoundError` for a directory without a run, and a `ValueError` if a directory is given twice or two
    runs have the same method, task and seed.
    """
    if len({directory.resolve() for directory in directories}) < len(directories):
        raise ValueError("A run directory is given twice; give each once.")
    given = [""] * len(directories) if methods is None else methods
    pairs = zip(directories, given, strict=True)
    runs = _trained([run for directory, method in pairs for run in _by_settings(_read(directory, method))])
    runs = _judged_alike(runs)
    paths: dict[str, str] = {}
    runs = [
        run if run.config.env else dataclasses.replace(run, logs=paths.setdefault(run.data, run.task)) for run in runs
    ]
    names = method_names(runs) if methods is None else [_with_settings(run) for run in runs]
    named = [dataclasses.replace(run, method=name) for run, name in zip(runs, names, strict=True)]
    taken: dict[tuple[str, str, int], Path] = {}
    for run in named:
        for seed in run.seeds:
            other = taken.setdefault((run.method, run.task, seed), run.directory)
            if other != run.directory:
                raise ValueError(
                    f"{other} and {run.directory} are both {run.method} on {run.task} with seed {seed}; give one."
                )
    return named


def _judged_alike(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """The runs, where a missing success counts as none if any evaluation in the same environment has one."""
    judging = {run.played_in for run in runs if _reports_success(run)} - {None}
    return [_with_success(run) if run.played_in in judging or _reports_success(run) else run for run in runs]


def _reports_success(run: ReportedRun) -> bool:
    return reports_success(run.metrics) or any(row["successes"] is not None for row in run.table)


def _with_success(run: ReportedRun) -> ReportedRun:
    table = [row | {"successes": row["successes"] or 0} for row in run.table]
    return dataclasses.replace(run, metrics=[with_success(row) for row in run.metrics], table=table)


def _read(directory: Path, method: str) -> ReportedRun:
    refuse_no_run(directory)
    versions, table, grid = (directory / name for name in ("versions.json", "evaluation.json", "scaling.json"))
    bad = bad_seeds(directory)
    metrics = read_metrics(directory) if (directory / "metrics.jsonl").exists() else []
    return ReportedRun(
        directory,
        read_config(config_path(directory)),
        read_json(versions) if versions.exists() else {},
        [row for row in metrics if member_of(row) not in bad],
        [row for row in _rows(table, "rows", TABLE, "sorl.evaluate") if member_of(row) not in bad],
        _rows(grid, "pairs", GRID, "sorl.scaling"),
        tuple(sorted(bad)),
        read_assessment(assessment_path(directory)) if assessment_path(directory).exists() else None,
        method,
    )


def _by_settings(run: ReportedRun) -> list[ReportedRun]:
    """The run itself; for a population, a run for each combination of hyper-parameters, with its seeds."""
    members = run.config.members
    if not run.config.population:
        return [run]
    # An assessment is of one member; older files do not record which.
    assessed = None if run.assessment is None else run.assessment.policy.member
    # All pairs of a grid are of members with the same hyper-parameters, which its rows name.
    played = run.pairs and settings(_rows(run.directory / "scaling.json", "rows", (), "sorl.scaling")[0])
    return [
        dataclasses.replace(
            run,
            config=dataclasses.replace(run.config, agent=first.agent, population=()),
            metrics=[_without_member(row) for row in run.metrics if settings(row) == first.settings],
            table=[_without_member(row) for row in run.table if settings(row) == first.settings],
            pairs=run.pairs if played == first.settings else [],
            bad_seeds=tuple(members[bad].seed for bad in run.bad_seeds if members[bad].settings == first.settings),
            assessment=run.assessment if assessed is None or members[assessed].settings == first.settings else None,
            settings=first.settings,
        )
        for first in list(members.values())[:: len(run.config.seeds)]
    ]


def _with_settings(run: ReportedRun) -> str:
    return ", ".join([run.method, *([settings_text(run.settings)] if run.settings else [])])


def _without_member(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "member"}


def _trained(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """The runs that made at least one update; prints a line for each other run."""
    found = []
    for run in runs:
        if run.updates or run.table or _has_policy(run.directory):
            found.append(run)
        else:
            print(f"{run.directory} is left out: it was started but never trained.")
    if not found:
        raise ValueError("None of the runs was ever trained; give the directory of one that sorl.train finished.")
    return found


def _has_policy(directory: Path) -> bool:
    return any(path for pattern in POLICIES for path in directory.glob(f"{pattern}.sorl"))


def _rows(path: Path, key: str, columns: Sequence[str], module: str) -> list[dict[str, Any]]:
    remedy = f"run python -m {module} {shlex.quote(str(path.parent))} again"
    return read_rows(path, key, columns, remedy) if path.exists() else []
