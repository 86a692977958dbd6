"""The runs of a report: their options, evaluations and grids, and the method that each run belongs to."""

import dataclasses
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sorl.agents import Budget
from sorl.agents.modules import module_option
from sorl.agents.registry import word
from sorl.assess.record import Assessment, read_assessment
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig, read_config
from sorl.policy import bad_seeds
from sorl.runs.directory import POLICIES, assessment_path
from sorl.runs.metrics import read_metrics
from sorl.runs.phases import phases
from sorl.runs.run import config_path, refuse_no_run
from sorl.statistics.intervals import Row, evaluation_rows, member_of, settings, settings_text
from sorl.statistics.measures import Measure, measure_of
from sorl.statistics.missing_success import reports_success, with_success
from sorl.system.files import read_json, read_rows
from sorl.train.value_range import Departure, departures


TABLE = ("training_seed", "inference_steps", "candidates", "successes", "episodes")
"""The columns of `evaluation.json` that a report needs."""

GRID = (
    *("seeds", "episodes", "inference_steps", "candidates", "success", "success_low", "success_high"),
    *("difference_low", "difference_high", "latency_ms", "remark"),
)
"""The columns of `scaling.json` that a report needs."""

DECISION = ("noise_scale", "policy_conditioning", "critic_conditioning", "verifier")
"""The columns of `evaluation.json`, if it has them, that say how all of its decisions were made."""

GENERATION = ("data.episodes", "data.generation_seed")
"""Options, by dotted name, that name the data well enough where they differ."""

IRRELEVANT = (
    *("env", "seeds", "population", "evaluation", "log_interval", "checkpoint_interval", "seed_mapping"),
    *("data.path", "data.directory", "data.mirrors", "data.download", "data.residence"),
)
"""Options, by dotted name, in which runs of one method may differ, because they change no policy but by rounding."""


@dataclasses.dataclass(frozen=True)
class ReportedRun:
    """The contents of a run directory that a report uses."""

    directory: Path
    config: TrainConfig
    versions: dict[str, Any]
    """Software, device and data (`versions.json`)."""
    metrics: list[dict[str, Any]]
    """Rows of `sorl.runs.metrics.read_metrics`."""
    table: list[dict[str, Any]]
    """Rows of `evaluation.json`, one for each seed and budget; empty without that file."""
    pairs: list[dict[str, Any]]
    """Pairs of `scaling.json`; empty without that file."""
    bad_seeds: tuple[int, ...] = ()
    """Seeds whose losses became non-finite; every figure leaves them out."""
    assessment: Assessment | None = None
    """The content of `assessment.json`; None without that file."""
    method: str = ""
    """The agent, and that in which this run differs from the report's other runs of that agent, by `method_names`."""
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The hyper-parameters of these members of a population, by dotted name; else empty."""
    logs: str = ""
    """The path by which the report names the logs, that of its first run on the same data; else empty."""

    @property
    def task(self) -> str:
        """The name of the environment, or the path of the logs."""
        return self.config.env or self.logs or str(self.config.data.path)

    @property
    def played_in(self) -> str | None:
        """The name of the environment that it was evaluated in; None if it is not known."""
        return self.config.env or (self.table[0].get("env") if self.table else None)

    @property
    def data(self) -> str:
        """What the training data are known by: the SHA-256 of each phase's, else their path; empty if neither is."""
        data, path = self.versions.get("data"), self.config.data.path
        if not isinstance(data, dict) or "sha256" not in data:
            return "" if path is None else str(path)
        later = phases(self.directory)[1:] if "phases" in self.versions else []
        return "+".join([data["sha256"], *(f"{phase['data']['sha256']}@{phase['from_step']}" for phase in later)])

    @property
    def data_name(self) -> str:
        """The name of the training data's file or directory."""
        data = self.versions.get("data")
        recorded = data.get("path", "") if isinstance(data, dict) else ""
        return Path(self.config.data.path or recorded).name

    @property
    def budget(self) -> Budget:
        """The first budget of the evaluations during training, at which scores are read; by default the usual one."""
        return self.config.budgets(final=False)[0]

    @property
    def evaluations(self) -> list[Row]:
        """The evaluations during training at `budget`: a row for each step and seed."""
        rows = evaluation_rows(self.metrics, self.config.evaluation.episodes, self.budget.noise_scale)
        sizes = self.budget.inference_steps, self.budget.candidates
        return [row for row in rows if (row["inference_steps"], row["candidates"]) == sizes]

    @property
    def measure(self) -> Measure:
        """The measure of its evaluations: success if all have one, else the return."""
        return measure_of([*self.evaluations, *self.table])

    @property
    def departures(self) -> dict[int, Departure]:
        """The seeds whose values left the range that the data's rewards allow."""
        return departures(self.metrics)

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        config = shlex.quote(str(config_path(self.directory)))
        return f"python -m sorl.train --config {config} --run-dir NEW{self.module_option}"

    @property
    def place(self) -> str:
        """The directory, and the option that names the module of its agent where a command needs one."""
        return shlex.quote(str(self.directory)) + self.module_option

    @property
    def module_option(self) -> str:
        """The option of a command that names the module of its agent, where that is needed."""
        return module_option(type(self.config.agent))

    @property
    def updates(self) -> int:
        """Number of updates, from the last checkpoint or the last row of metrics."""
        return max([_last_checkpoint(self.directory), *(row["step"] for row in self.metrics)])

    @property
    def seeds(self) -> list[int]:
        """Training seeds that have an evaluation during training or after it."""
        found = [row["training_seed"] for row in [*self.evaluations, *self.table]]
        return [seed for seed in self.config.seeds if seed in found]


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
    """The run itself, or of a population a run for each combination of hyper-parameters, with its seeds."""
    members = run.config.members
    if not run.config.population:
        return [run]
    # An assessment is of one member; files of before its number was recorded do not tell which.
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
        if run.metrics or run.table or _last_checkpoint(run.directory) or _has_policy(run.directory):
            found.append(run)
        else:
            print(f"{run.directory} is left out: it was started but never trained.")
    if not found:
        raise ValueError("None of the runs was ever trained; give the directory of one that sorl.train finished.")
    return found


def _has_policy(directory: Path) -> bool:
    return any(path for pattern in POLICIES for path in directory.glob(f"{pattern}.sorl"))


def _last_checkpoint(directory: Path) -> int:
    steps = [path.name for path in (directory / "checkpoints").glob("*") if path.name.isdecimal()]
    return max(map(int, steps), default=0)


def _rows(path: Path, key: str, columns: Sequence[str], module: str) -> list[dict[str, Any]]:
    remedy = f"run python -m {module} {shlex.quote(str(path.parent))} again"
    return read_rows(path, key, columns, remedy) if path.exists() else []


def method_names(runs: Sequence[ReportedRun]) -> list[str]:
    """The agent of each run, with that in which runs of that agent on the same task differ: options, data, evaluations.

    An option that differs only between tasks is part of a preset, and so does not make a different method.
    """
    options = [_options(run.config) | _judgement(run) | data for run, data in zip(runs, _data(runs), strict=True)]
    apart: dict[str, set[str]] = defaultdict(set)
    for run, own in zip(runs, options, strict=True):
        for other_run, other in zip(runs, options, strict=True):
            if (_agent(run), run.task) == (_agent(other_run), other_run.task):
                differing = {name for name in own.keys() & other.keys() if own[name] != other[name]}
                apart[_agent(run)] |= differing - {"data"} if differing & {*GENERATION} else differing
    return [
        ", ".join([_agent(run), *(_named(name, own[name]) for name in sorted(apart[_agent(run)] & own.keys()))])
        for run, own in zip(runs, options, strict=True)
    ]


def _agent(run: ReportedRun) -> str:
    return word(type(run.config.agent))


def _options(config: TrainConfig) -> dict[str, str]:
    """The options in which methods may differ, by dotted name."""
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


def _data(runs: Sequence[ReportedRun]) -> list[dict[str, str]]:
    """The name of each run's data, with the beginning of their SHA-256 if other data of the task have that name."""
    known = {(run.task, run.data): run.data_name for run in reversed(runs) if run.data}
    count = Counter((task, name) for (task, _), name in known.items())
    found = []
    for run in runs:
        name = known.get((run.task, run.data), "")
        short = re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1", run.data)
        found.append({"data": name if count[run.task, name] == 1 else f"{name} {short}"} if run.data else {})
    return found


def _judgement(run: ReportedRun) -> dict[str, str]:
    """What the scores depend on besides the policy: how success is judged, and the evaluations that they are read at.

    The numbers of episodes and of other budgets are left out: they make a score more precise, but change no mean.
    """
    evaluation = run.config.evaluation
    found = {"success_timing": evaluation.success_timing}
    if evaluation.interval:
        found["evaluation_interval"] = str(evaluation.interval)
        found |= {name: str(getattr(run.budget, name)) for name in ("inference_steps", "candidates")}
    return found | ({"table": _of_table(run)} if run.table else {})


def _of_table(run: ReportedRun) -> str:
    """How the table after training departs from the evaluations during it, as `sorl.evaluate` can make it."""
    usual = {name: value for name, value in to_json(run.budget).items() if name in DECISION}
    usual |= {"env": run.config.env, "success_timing": run.config.evaluation.success_timing}
    row = {name: value for name, value in run.table[0].items() if (name, value) != ("success_timing", None)}
    departures = [_named(name, str(row[name])) for name in usual if row.get(name, usual[name]) != usual[name]]
    return " and ".join(departures) or "as usual"


def _named(option: str, value: str) -> str:
    name = option.rsplit(".", 1)[-1].replace("_", " ")
    return {"True": name, "False": f"no {name}"}.get(value, f"{name} {value}")
