"""Metrics of a run: rows in a file of JSON lines, with copies as CSV and in other sinks."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

from sorl.statistics.rows import member_of
from sorl.system.files import whole_file, write_csv


PHASES: Mapping[str, str] = {
    "training": "mean over the updates since the last row, on training batches",
    "validation": "mean over fixed held-out batches, at this step",
    "evaluation": "mean over episodes in the environment, at this step",
}
"""The meaning of the phase before a metric's name, as in `training/q_loss`."""

METRICS: Mapping[str, str] = {
    "value_excess": "how far a mean Q or V is outside what the rewards allow, as a share of that range; 0 inside",
    "success": "fraction of episodes that succeeded, where the environment reports success",
    "return": "undiscounted sum of rewards of an episode",
    "return_low": "lower end of the return's 95 % bootstrap interval, where the environment reports no success",
    "return_high": "upper end of the return's 95 % bootstrap interval, where the environment reports no success",
    "episode_length": "environment steps of an episode",
}
"""What is logged of every agent, without its phase, beside the agent's own metrics, which
`sorl.agents.shared.metrics.described` describes."""

TIMINGS: Mapping[str, str] = {
    "elapsed_seconds": "wall-clock time since this process began to train",
    "training_seconds": "wall-clock time of the updates since the last row",
    "updates_per_second": "updates of each seed over that time",
    "validation_seconds": "wall-clock time of the validation losses",
    "evaluation_seconds": "wall-clock time of the evaluation",
    "evaluation_stall_seconds": "wall-clock time for which training waited for the evaluation",
    "checkpoint_seconds": "wall-clock time for which training waited for a checkpoint to be saved",
}
"""Every timing that may be logged. Timings differ from run to run, so they have a file of their own."""

METRIC_KEYS, TIMING_KEYS = ("step", "seed"), ("step",)
"""The keys of a row of metrics and of timings; their values are whole numbers."""

_NAME = re.compile(rf"({'|'.join(PHASES)})/[\w./-]+")

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@runtime_checkable
class Sink(Protocol):
    """Somewhere that rows are copied to."""

    def write(self, step: int, seed: int, metrics: Mapping[str, float]) -> None:
        """Takes one row."""
        ...

    def close(self) -> None:
        """Writes out what is left."""
        ...


class MetricLog:
    """Writes a run's metrics to `metrics.jsonl` and `metrics.csv`, and its timings to `timings.jsonl`.

    A row is `{"step": ..., "seed": ..., "training/q_loss": ...}`; in a population it also has the `member`'s number and
    its hyper-parameters, such as `agent.q_coefficient`. The metrics of an evaluation end with their budget,
    as in `evaluation/success/M4N8` (four jumps, best of eight). Numbers are written with enough digits to read them
    back exactly. JSON has no NaN or infinity, so these are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.

    A run that is killed and resumed has every row exactly once, provided that all rows of a step are written, then
    `sync` is called, and then the checkpoint of that step is saved. For a row that may be written later (such as that
    of an interrupted evaluation), ask `has` first, because no row may be written twice.

    **Arguments:**

    - `directory`: the run directory; created if missing.
    - `resume_step`: None for a new run, else the step of the checkpoint that training resumes from. Rows of later steps
      are dropped (-1 drops all), and so is an incomplete last line.
    - `sinks`: receive a copy of every row; they are closed with this log.
    - `order`: names of metrics without their phase, in the order of their columns in `metrics.csv`.
    - `members`: the columns that identify each member of a population, by its number; without one, the seed does.

    **Raises:** `FileExistsError` if there are rows and `resume_step` is None; `ValueError` if a file is damaged.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        resume_step: int | None = None,
        sinks: Sequence[Sink] = (),
        order: Iterable[str] = (),
        members: Mapping[int, Mapping[str, Any]] | None = None,
    ):
        self._directory, self._members = Path(directory), members
        self._directory.mkdir(parents=True, exist_ok=True)
        self._sinks = tuple(sinks)
        self._metric_columns = [f"{phase}/{name}" for phase in PHASES for name in [*order, *METRICS]]
        self._metrics = _open_rows(self._directory / "metrics.jsonl", resume_step, METRIC_KEYS)
        self._rows = RowsDigest()
        self._timings = _open_rows(self._directory / "timings.jsonl", resume_step, TIMING_KEYS)
        rows = read_metrics(self._directory)
        self._written = {(row["step"], member_of(row), name) for row in rows for name in row}
        for row in rows:
            self._rows.add(_to_line(row))
        self._write_csv()

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, step: int, seed: int, metrics: Mapping[str, Any]) -> None:
        """Adds a row.

        **Arguments:** `step`, the number of updates made; `seed`, the training seed, or the member's number; `metrics`,
        numbers (or arrays of one number) by name with its phase, such as `{"training/q_loss": 0.5}`.

        **Raises:** `ValueError` if a name has no phase or a character that is not allowed, or if the metric is already
        logged for that step and seed.
        """
        for name in metrics:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"The metric {name!r} cannot be logged; give it a name of letters, digits and _ . / - after "
                    f"one of {', '.join(f'{phase}/' for phase in PHASES)}."
                )
            if self.has(step, seed, name):
                raise ValueError(f"{name} of step {step} and seed {seed} is logged already; log each step once.")
        row = {name: float(value) for name, value in metrics.items()}
        columns: Mapping[str, Any] = {"seed": seed} if self._members is None else self._members[seed]
        self._rows.add(_append(self._metrics, {"step": step, **columns, **row}))
        self._written.update((step, seed, name) for name in row)
        for sink in self._sinks:
            sink.write(step, seed, row)

    def has(self, step: int, seed: int, name: str) -> bool:
        """Whether the metric is already logged for that step and seed."""
        return (step, seed, name) in self._written

    def has_any(self, beginning: str) -> bool:
        """Whether a metric whose name begins with `beginning` is logged for any step and seed."""
        return any(name.startswith(beginning) for _, _, name in self._written)

    def write_timings(self, step: int, timings: Mapping[str, float]) -> None:
        """Adds a row of timings; raises a `ValueError` if one is not in `TIMINGS`."""
        for name in timings:
            if name not in TIMINGS:
                raise ValueError(f"The figure {name} is not documented; give it a line in sorl.runs.metrics.TIMINGS.")
        _append(self._timings, {"step": step} | {name: float(value) for name, value in timings.items()})

    def digest(self) -> dict[str, Any]:
        """The digest of all rows so far, with which `check_rows` detects missing, doubled or edited rows; for JSON."""
        return self._rows.to_json()

    def sync(self) -> None:
        """Flushes all rows to disk (fsync) and rewrites the CSV file; call it before each checkpoint."""
        for file in (self._metrics, self._timings):
            os.fsync(file.fileno())
        self._write_csv()

    def close(self) -> None:
        """Flushes everything to disk and closes the sinks; closing again does nothing."""
        if self._metrics.closed:
            return
        self.sync()
        self._metrics.close()
        self._timings.close()
        for sink in self._sinks:
            sink.close()

    def _write_csv(self) -> None:
        rows = read_metrics(self._directory)
        # Columns have a fixed order, not that of appearance; those with a budget come last.
        names = dict.fromkeys(name for row in rows for name in row)
        identity = ["step", "member", "seed", *(name for name in names if "/" not in name)]
        columns = dict.fromkeys([*identity, *self._metric_columns]) | names
        found = {"step", "seed"}.union(*rows)
        write_csv(self._directory / "metrics.csv", rows, [name for name in columns if name in found])


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the rows of a run; it may still be training.

    **Arguments:** `path`, a run directory or a file of rows.

    **Returns:** one dictionary per row, in the order written; `step` and `seed` are ints, everything else a float.

    **Raises:** `FileNotFoundError` if there is no file; `ValueError` if it is no file or a line is damaged. An
    incomplete last line is ignored.
    """
    path = Path(path)
    return list(_read_rows(path / "metrics.jsonl" if path.is_dir() else path, METRIC_KEYS))


def read_timings(directory: Path) -> list[dict[str, Any]]:
    """Reads the timings of a run, as `read_metrics` reads its rows; an empty list if there is no file."""
    path = directory / "timings.jsonl"
    return list(_read_rows(path, TIMING_KEYS)) if path.exists() else []


class RowsDigest:
    """The count and the running SHA-256 of rows, in the order written."""

    def __init__(self):
        self._count, self._sha256 = 0, hashlib.sha256()

    def add(self, line: str) -> None:
        """Adds a row, given as its line in the file."""
        self._count += 1
        self._sha256.update(line.encode())

    def to_json(self) -> dict[str, Any]:
        """The count and the digest of all rows added."""
        return {"count": self._count, "sha256": self._sha256.hexdigest()}


def check_rows(directory: Path, step: int, digest: Mapping[str, Any]) -> None:
    """Checks the rows up to a step against the `MetricLog.digest` that was saved with the step's checkpoint.

    Only rows of evaluations may have been added since then: an interrupted evaluation is repeated after a checkpoint.

    Raises a `ValueError`, one sentence, if rows are missing, doubled or edited.
    """
    path = directory / "metrics.jsonl"
    rows = [row for row in read_metrics(path) if row["step"] <= step] if path.exists() else []
    then, count = RowsDigest(), digest["count"]
    for row in rows[:count]:
        then.add(_to_line(row))
    names = [(row["step"], member_of(row), name) for row in rows for name in row if "/" in name]
    added = [name for row in rows[count:] for name in row if "/" in name]
    other = len(rows) != count and not all(name.startswith("evaluation/") for name in added)
    if len(rows) < count or other or len(set(names)) < len(names):
        raise ValueError(
            f"{path} has {len(rows)} rows up to update {step}, but the checkpoint of update {step} was saved with "
            f"{count}: rows are missing or doubled; restore the file from a copy."
        )
    if then.to_json() != digest:
        raise ValueError(
            f"The rows of {path} up to update {step} differ from those that the checkpoint of update {step} was saved "
            "with; restore the file from a copy."
        )


def _read_rows(path: Path, keys: Sequence[str]) -> Iterable[dict[str, Any]]:
    if path.exists() and not path.is_file():  # opening a pipe would block
        raise ValueError(f"{path} is no file; restore it from a copy.")
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            row = {name: _NON_FINITE[value] if isinstance(value, str) else value for name, value in row.items()}
            # Compare types, because True is an instance of int.
            if {type(row[key]) for key in keys} != {int} or not {type(value) for value in row.values()} <= {int, float}:
                raise ValueError("something else than numbers")
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"Line {number} of {path} is damaged: a JSON object of a step and numbers was expected; restore the "
                "file from a copy (without that line the run can be read, but not resumed)."
            ) from error
        yield row


def _open_rows(path: Path, resume_step: int | None, keys: Sequence[str]) -> TextIO:
    """Opens a file of rows for appending, after dropping the rows that a resumed run will write again."""
    if path.exists() and path.stat().st_size > 0:
        if resume_step is None:
            raise FileExistsError(f"{path} holds rows already; resume that run, or choose another directory.")
        kept = [_to_line(row) for row in _read_rows(path, keys) if row["step"] <= resume_step]
        with whole_file(path) as file:
            file.writelines(kept)
    return path.open("a", encoding="utf-8", newline="\n")


def _append(file: TextIO, row: Mapping[str, Any]) -> str:
    line = _to_line(row)
    file.write(line)
    # One write per line, so that a killed process leaves at most its last line incomplete.
    file.flush()
    return line


def _to_line(row: Mapping[str, Any]) -> str:
    names = {math.inf: "Infinity", -math.inf: "-Infinity"}
    finite = {name: x if math.isfinite(x) else names.get(x, "NaN") for name, x in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"
