"""Carries a sweep through: starts what is not finished, again if it was killed, and shows how it goes."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from sorl.runs.sweeps import SweepRun
from sorl.sweep.attempt import Attempt
from sorl.sweep.engines.interface import Engine
from sorl.sweep.ledger import KILLED
from sorl.sweep.plan import CONFIG
from sorl.sweep.table import LiveTable, flawed, lines, read_states, summary


POLL_SECONDS = 0.1


def drive(out: Path, runs: Sequence[SweepRun], engine: Engine, *, retries: int, workers: int | None) -> bool:
    """Trains all runs of a sweep that are not finished.

    **Arguments:** `out`, the directory of the sweep, in which `write_plan` has written it; `retries`, how often a run
    is started again after it was killed; `workers`, the most processes that play an evaluation of a run (None: as many
    as the run's options say).

    **Returns:** whether all runs are finished and none has a flaw. On an exception, the running runs save and stop.
    """
    table = LiveTable(out, runs, read_states(out, runs))
    table.message(summary(runs, table.states))
    waiting = deque(run for run in runs if table.states[run.directory].kind != "finished")
    attempts = {str(out / run.directory): run for run in runs}
    running: dict[str, SweepRun] = {}
    tries: Counter[str] = Counter()
    try:
        while waiting or engine.busy:
            while waiting and engine.has_room:
                run = waiting.popleft()
                running[run.directory] = run
                engine.start(attempt(out, run, workers))
            for place, code in engine.poll().items():
                run = running.pop(attempts[place].directory)
                state = table.read(run.directory)
                tries[run.directory] += 1
                if state.kind != "finished" and code in KILLED and tries[run.directory] <= retries:
                    table.message(f"  killed    {run.title}: it is started again ({place})")
                    waiting.append(run)
                else:
                    table.message("\n".join(lines([run], table.states, (state.kind,))))
            table.refresh(list(running))
            time.sleep(POLL_SECONDS)
    finally:
        engine.stop()
    table.message(summary(runs, table.states))
    return all(state.kind == "finished" for state in table.states.values()) and not flawed(runs, table.states)


def attempt(out: Path, run: SweepRun, workers: int | None) -> Attempt:
    """The attempt at a run: `sorl.train --start-or-resume` with its planned options."""
    directory = out / run.directory
    words = [
        "--config",
        str(directory / CONFIG),
        "--run-dir",
        str(directory),
        "--start-or-resume",
        "--quiet",
        *run.words,
    ]
    words += [] if workers is None else ["--evaluation.workers", str(workers)]
    return Attempt(str(directory), tuple(words), run.policies, run.updates, run.evaluated)
