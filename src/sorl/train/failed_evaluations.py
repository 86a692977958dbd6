"""The record of a run's failed evaluations, whose rows are missing: `failed_evaluations.json`."""

from collections.abc import Mapping
from pathlib import Path

from sorl.system import entry
from sorl.system.files import read_json, write_json


MOST_IN_A_ROW = 2
"""Number of successive failed evaluations after which the run stops."""


class EvaluationError(RuntimeError):
    """A run saved everything and stopped, because its evaluations fail."""


class FailedEvaluations:
    """The steps whose evaluation failed, each with its reason; the file exists once there is one.

    **Arguments:** `directory`, the run directory; `resume_step`, None for a new run, else the step that it continues
    from; later evaluations are repeated.

    Raises a `ValueError`, one sentence, if the file is damaged. Creating the object writes nothing.
    """

    def __init__(self, directory: Path, resume_step: int | None):
        self._path = directory / "failed_evaluations.json"
        self._in_a_row = 0
        self.reasons: dict[int, str] = {}
        if resume_step is not None and self._path.exists():
            self.reasons = {step: why for step, why in _read(self._path).items() if step <= resume_step}

    @property
    def repeated(self) -> bool:
        """Whether `MOST_IN_A_ROW` successive evaluations have failed, so that the next ones would probably fail too."""
        return self._in_a_row >= MOST_IN_A_ROW

    def add(self, step: int, error: Exception) -> str:
        """Records the failure at a step, and **returns** the reason."""
        # Errors that no user can cause say little without their class.
        text = entry.sentence(error) or f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        self.reasons[step] = f"{text.rstrip('.')}."
        self._in_a_row += 1
        self.write()
        return self.reasons[step]

    def made_up_for(self, step: int) -> None:
        """Records that an evaluation succeeded, and removes its earlier failure if it had one."""
        self._in_a_row = 0
        if self.reasons.pop(step, None) is not None:
            self.write()

    def refuse_repeated(self, step: int) -> None:
        """Raises an `EvaluationError`, one sentence, if the run stopped at `step` because its evaluations fail."""
        if self.repeated:
            last = max(self.reasons)
            why = self.reasons[last].rstrip(".")
            raise EvaluationError(
                f"The last {self._in_a_row} evaluations failed (at update {last}: {why}), so "
                f"the run stopped at update {step}, which is saved; fix the cause and continue the run with --resume."
            )

    def write(self) -> None:
        """Writes the file if its content has changed; a resumed run drops the failures of later steps."""
        if self.reasons != (_read(self._path) if self._path.exists() else {}):
            write_json(self._path, {str(step): why for step, why in self.reasons.items()})


def missing(reasons: Mapping[int, str], step: int, resume: str) -> str:
    """Text about the failed evaluations of a run that ended at `step`: the reasons, and how to repeat the last one."""
    failed = [f"The evaluation at update {one} failed and has no row: {why}" for one, why in sorted(reasons.items())]
    if step in reasons:
        return "\n".join([*failed, f"Repeat the evaluation at update {step} with:", f"  {resume}"])
    return "\n".join([*failed, "Those policies were trained further and are not kept; no other row is affected."])


def _read(path: Path) -> dict[int, str]:
    found = read_json(path, "remove it")
    if not all(step.isdecimal() and isinstance(why, str) for step, why in found.items()):
        raise ValueError(f"{path} is damaged: update counts with reasons were expected; remove it.")
    return {int(step): why for step, why in found.items()}
