"""One run of a report: its options, evaluations and grid."""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sorl.agents import Budget
from sorl.agents.modules import module_option
from sorl.assess.record import Assessment
from sorl.config.options import TrainConfig
from sorl.runs.phases import phases
from sorl.runs.run import config_path
from sorl.statistics.measures import Measure, measure_of
from sorl.statistics.rows import Row, evaluation_rows
from sorl.train.value_range import Departure, departures


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
    """The agent, and how this run differs from the report's other runs of it, by `sorl.report.methods`."""
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
        """An identifier of the training data: the SHA-256 of each phase's, else their path; empty without either."""
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


def _last_checkpoint(directory: Path) -> int:
    steps = [path.name for path in (directory / "checkpoints").glob("*") if path.name.isdecimal()]
    return max(map(int, steps), default=0)
