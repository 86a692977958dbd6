"""The table of a sweep: how many runs are finished, running and failed, and the time left."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sorl.runs.sweeps import SweepRun
from sorl.sweep.ledger import State, state_of


KINDS = ("finished", "running", "failed", "stopped", "missing")
"""The states of a run, in the order in which the table counts them."""
SHOWN = 20
"""The most runs that the live table lists."""
REFRESH_SECONDS = 1.0
LINE_SECONDS = 30.0
"""Seconds between two lines where standard error is no terminal."""

States = Mapping[str, State]
"""The state of each run, by its directory."""


def read_states(out: Path, runs: Sequence[SweepRun]) -> dict[str, State]:
    """The states of all runs of the sweep in `out`."""
    return {run.directory: state_of(out / run.directory, run) for run in runs}


def counts(states: States) -> str:
    """The number of runs in each state, such as `3 of 8 runs finished, 2 running, 3 missing`."""
    found = Counter(state.kind for state in states.values())
    others = [f"{found[kind]} {kind}" for kind in KINDS[1:] if found[kind]]
    return ", ".join([f"{found['finished']} of {len(states)} runs finished", *others])


def summary(runs: Sequence[SweepRun], states: States) -> str:
    """`counts`, the speed of the running runs together, and the time that their speed leaves for all updates."""
    rate = sum(state.updates_per_second or 0.0 for state in states.values() if state.kind == "running")
    left = sum(run.updates - states[run.directory].step for run in runs if states[run.directory].kind != "finished")
    text = counts(states)
    return f"{text}; {rate:.3g} updates/s, {duration(left / rate)} left" if rate and left > 0 else text


def lines(runs: Sequence[SweepRun], states: States, kinds: Sequence[str]) -> list[str]:
    """A line for each run in one of the states `kinds`, in their order: what it is, its progress, and its last line."""
    found = []
    for kind in kinds:
        for run in runs:
            state = states[run.directory]
            if state.kind == kind:
                speed = f", {state.updates_per_second:.3g}/s" if state.updates_per_second and kind == "running" else ""
                why = state.flaw if kind == "finished" else state.last_line if kind == "failed" else ""
                # The last line of a run that was killed is about something else.
                if kind == "stopped" and state.last_line.startswith("Stopped"):
                    why = state.last_line
                words = f"  {kind:8}  {run.title}: update {state.step} of {run.updates}{speed}"
                found.append(f"{words}; {why}" if why else words)
    return found


def flawed(runs: Sequence[SweepRun], states: States) -> list[SweepRun]:
    """The finished runs of which something failed, such as a seed or an evaluation."""
    return [run for run in runs if states[run.directory].kind == "finished" and states[run.directory].flaw]


def duration(seconds: float) -> str:
    """A time in the two largest units that it has, such as `2 h 5 min`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


class LiveTable:
    """Shows a sweep on standard error: a table that is redrawn on a terminal, else a line from time to time.

    Only runs that are not finished are read again.
    """

    def __init__(self, out: Path, runs: Sequence[SweepRun], states: dict[str, State]):
        self._out, self._runs = out, runs
        self.states = states
        self._is_terminal = sys.stderr.isatty()
        self._drawn, self._last = 0, time.monotonic()

    def read(self, directory: str) -> State:
        """Reads the state of one run again."""
        run = next(run for run in self._runs if run.directory == directory)
        self.states[directory] = state_of(self._out / directory, run)
        return self.states[directory]

    def refresh(self, running: Sequence[str]) -> None:
        """Shows the table again if it is time to; `running` are the directories of the runs that an engine has."""
        if time.monotonic() - self._last < (REFRESH_SECONDS if self._is_terminal else LINE_SECONDS):
            return
        self._last = time.monotonic()
        for directory in running:
            self.read(directory)
        shown = [summary(self._runs, self.states)]
        if self._is_terminal:
            listed = lines(self._runs, self.states, ("running", "failed"))
            shown += listed[:SHOWN] + ([f"  and {len(listed) - SHOWN} more"] if len(listed) > SHOWN else [])
            self._erase()
            self._drawn = len(shown)
        print("\n".join(shown), file=sys.stderr, flush=True)

    def message(self, text: str) -> None:
        """Writes a line that stays."""
        self._erase()
        print(text, file=sys.stderr, flush=True)

    def _erase(self) -> None:
        if self._drawn:
            sys.stderr.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0
