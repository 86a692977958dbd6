"""How a session ended, and what the command prints about it."""

import dataclasses
import signal
from pathlib import Path

from sorl.config.options import TrainConfig
from sorl.train import failed_evaluations
from sorl.train.summary import resume_command, show_results


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a session ended."""

    step: int
    """Number of updates made."""
    signal: int | None
    """The signal that stopped it, or None."""
    bad_seeds: dict[int, int]
    """The first update with a non-finite loss of each seed (or member of a population) that had one."""
    failed_evaluations: dict[int, str] = dataclasses.field(default_factory=dict)
    """The reason of each failed evaluation, by its step; these have no rows."""


def show_ending(directory: Path, config: TrainConfig, ending: Ending, *, quiet: bool = False) -> int:
    """Prints the results, unless a signal stopped the training, and how it ended; **returns** the exit code.

    **Arguments:** `quiet`, whether to hide the progress bar of the table over budgets.
    """
    resume = resume_command(config, directory)
    if ending.signal is not None:
        name = signal.Signals(ending.signal).name
        print(f"Stopped by {name} at update {ending.step}, which is saved; continue with:\n  {resume}")
        return 128 + ending.signal
    seeds = [seed for seed in config.members if seed not in ending.bad_seeds]
    complete = show_results(config, directory, seeds, quiet=quiet)
    for seed, step in ending.bad_seeds.items():
        name = config.members[seed].label
        print(f"{name} stopped at update {step}, where its losses were not finite; the results leave it out.")
    if ending.failed_evaluations:
        print(failed_evaluations.missing(ending.failed_evaluations, ending.step, resume))
    return 0 if complete and not ending.bad_seeds and not ending.failed_evaluations else 1
