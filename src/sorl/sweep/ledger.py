"""The state of each run of a sweep, read from the run's own directory alone; imports no jax."""

import dataclasses
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from sorl.runs.sweeps import SweepRun
from sorl.system import locks
from sorl.system.files import read_json, read_rows
from sorl.system.signals import SIGNALS


LOG = "log.txt"
"""The file in a run directory with what `sorl.train` printed."""
ATTEMPT = "attempt.json"
"""The file in a run directory about the last ended attempt at the run: exit code, host, peak memory."""
ATTEMPT_LINE = "Attempt"
"""How the first line of an attempt begins in the log."""
STOPPED = {128 + number for number in SIGNALS}
"""Exit codes of a run that a signal stopped, after it saved its state."""
KILLED = STOPPED | {128 + signal.SIGKILL}
"""Exit codes of a run that was stopped or killed from outside, and so may be started again."""
_TAIL = 8192
"""Bytes that are read from the end of a file."""

Kind = Literal["finished", "running", "failed", "stopped", "missing"]


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a run."""

    kind: Kind
    """`stopped` is a run that was begun, and that neither trains now nor failed."""
    step: int
    """Number of updates, as of the last row."""
    updates_per_second: float | None
    """Speed at the last row."""
    last_line: str
    """The error that ended it, or else the last line that it printed."""
    flaw: str = ""
    """What is wrong with the results, such as seeds without any; empty if nothing is."""


def state_of(directory: Path, run: SweepRun) -> State:
    """The state of a run.

    **Arguments:** `directory`, the run directory; `run`, what was planned.
    """
    timings = _last_rows(directory / "timings.jsonl")
    speeds = [row["updates_per_second"] for row in timings if "updates_per_second" in row]
    step = max([int(row["step"]) for row in timings], default=0)
    speed = speeds[-1] if speeds else None
    return State(_kind(directory, run), step, speed, last_line(directory), _flaw(directory, run.policies))


def is_finished(directory: Path, policies: Sequence[str], updates: int, *, evaluated: bool) -> bool:
    """Whether a run has made its last update and, if it ends with a table of evaluations, the table.

    **Arguments:** `policies`, those of `SweepRun`. Seeds (or members) whose losses became non-finite are finished.
    """
    if not (directory / "config.json").exists():
        return False
    bad, failed = (_read(directory / name) for name in ("bad_seeds.json", "failed_evaluations.json"))
    good = [name for name in policies if name.partition("-")[2] not in bad]
    if str(updates) in failed or any(_policy_step(directory / f"policy-{name}.sorl") < updates for name in good):
        return False
    if not evaluated or not good:
        return len(good) > 0 or len(bad) > 0
    rows = _table(directory / "evaluation.json")
    played = {f"member-{row['member']}" if "member" in row else f"seed-{row['training_seed']}" for row in rows}
    return played >= {*good} and all(row["step"] >= updates for row in rows)


def last_line(directory: Path) -> str:
    """The last error in the log of a run's last attempt, or else its last line; empty without a log."""
    lines = [line.strip() for line in _tail(directory / LOG).splitlines()]
    begins = [number for number, line in enumerate(lines) if line.startswith(f"{ATTEMPT_LINE} on ")]
    lines = [line for line in lines[begins[-1] + 1 if begins else 0 :] if line]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors[-1:] or lines[-1:] or [""])[0]


def exit_code(directory: Path) -> int | None:
    """The exit code of the last ended attempt; None if none has ended."""
    return _read(directory / ATTEMPT).get("exit_code")


def _kind(directory: Path, run: SweepRun) -> Kind:
    if locks.is_held(directory / ".lock"):
        return "running"
    if is_finished(directory, run.policies, run.updates, evaluated=run.evaluated):
        return "finished"
    code = exit_code(directory)
    if code is not None and code not in STOPPED:
        return "failed"
    return "stopped" if (directory / "config.json").exists() or code is not None else "missing"


def _flaw(directory: Path, policies: Sequence[str]) -> str:
    bad, failed = (_read(directory / name) for name in ("bad_seeds.json", "failed_evaluations.json"))
    kind = policies[0].partition("-")[0]  # seed or member
    seeds = f"losses of {kind} {', '.join(bad)} became non-finite" if bad else ""
    evaluations = f"the evaluation at update {', '.join(failed)} failed" if failed else ""
    return "; ".join(text for text in (seeds, evaluations) if text)


def _policy_step(path: Path) -> int:
    """The number of updates of a policy, from the header of its file; -1 without a file."""
    try:
        with path.open("rb") as file:
            file.readline()
            return int(json.loads(file.readline())["provenance"]["step"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # a damaged file is written again by a resume
        return -1


def _table(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's table of evaluations; none without one."""
    again = "remove it, and the command that trained the run writes it again"
    try:
        return read_rows(path, "rows", ("training_seed", "step"), again)
    except FileNotFoundError:
        return []


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, "remove it, and the sweep continues the run")
    except FileNotFoundError:  # a failed start removes its files, also while they are read
        return {}


def _last_rows(path: Path) -> list[dict[str, Any]]:
    """The last rows of a file of JSON lines that may still be written."""
    rows = []
    for line in _tail(path).split("\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except ValueError:  # the first line is cut
            continue
    return [row for row in rows if isinstance(row, dict) and type(row.get("step")) is int]


def _tail(path: Path) -> str:
    """The end of a file; empty without one."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
