"""One attempt at a run, as a process of its own, which outlives the sweep's command: `python -m sorl.sweep.attempt`.

It waits while another process trains the run, starts `sorl.train`, passes signals on to it, and records how it ended.
If the attempt itself is killed, `sorl.train` gets a SIGTERM from Linux, saves and stops. Imports no jax.
"""

import ctypes
import dataclasses
import json
import os
import platform
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from sorl.sweep.cores import reserve
from sorl.sweep.ledger import ATTEMPT, ATTEMPT_LINE, LOG, is_finished
from sorl.system import entry, locks
from sorl.system.files import make_directory, read_json, write_json
from sorl.system.signals import SIGNALS


POLL_SECONDS = 0.1
LOCK = ".attempt.lock"
"""The lock file in a run directory of the attempt that trains the run."""
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What is run, and with what."""

    directory: str
    """The run directory."""
    command: tuple[str, ...]
    """The arguments of `sorl.train`."""
    policies: tuple[str, ...]
    updates: int
    evaluated: bool
    cores: tuple[int, ...] = ()
    """CPU cores to run on; empty: `core_count` of them, or all."""
    core_count: int = 0
    """Number of CPU cores to choose when the run is started, away from other attempts on that machine; 0: all."""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables to add."""
    with_parent: bool = False
    """Stop the run when standard input is closed, as it is when the parent process ends."""

    def to_json(self) -> str:
        """The argument of `python -m sorl.sweep.attempt`."""
        return json.dumps(dataclasses.asdict(self))

    def process(self) -> subprocess.Popen[bytes]:
        """Starts the attempt, which shares neither session nor terminal with this process."""
        make_directory(Path(self.directory))
        return subprocess.Popen(
            [sys.executable, "-m", "sorl.sweep.attempt", self.to_json()],
            stdin=subprocess.PIPE if self.with_parent else subprocess.DEVNULL,
            start_new_session=True,
        )

    def write_to_log(self) -> None:
        """Sends what this process and those that it starts print to the run's log."""
        make_directory(Path(self.directory))
        with (Path(self.directory) / LOG).open("ab") as log:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(log.fileno(), stream.fileno())


class _Child:
    """The process that trains, and the signals for it."""

    def __init__(self, attempt: Attempt):
        self._attempt = attempt
        self._process: subprocess.Popen[bytes] | None = None
        self.signal: int | None = None
        for number in SIGNALS:
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        # A second signal of the same kind would end the training without saving.
        if self.signal is None:
            self.signal = number
            if self._process is not None:
                self._process.send_signal(number)

    def check_parent(self) -> None:
        """Stops the run if the parent process has ended."""
        if self._attempt.with_parent and self.signal is None and select.select([sys.stdin], [], [], 0)[0]:
            self._pass_on(signal.SIGTERM, None)

    def run(self) -> tuple[int, int]:
        """Trains; **returns** the exit code and the peak memory in bytes."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sorl.train", *self._attempt.command],
            stdin=subprocess.DEVNULL,
            env=os.environ | self._attempt.environment,
            preexec_fn=_stop_with_parent(),
        )
        if self.signal is not None:
            self._process.send_signal(self.signal)
        # Only `poll` reaps the process: `send_signal` calls it too, and so never signals another process of that id.
        while (code := self._process.poll()) is None:
            self.check_parent()
            time.sleep(POLL_SECONDS)
        if code < 0:
            cause = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
            print(f"error: sorl.train was ended by {signal.Signals(-code).name}{cause}.", flush=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return (128 - code if code < 0 else code), peak


def main(attempt: Attempt) -> int:
    """Makes the attempt; **returns** the exit code of `sorl.train`, or 0 if the run is finished already."""
    child = _Child(attempt)
    # Attempts of earlier commands may still be there; they are waited for, one after another, and often finish the run.
    with ExitStack() as stack:
        while not _takes_turn(stack, Path(attempt.directory)):
            child.check_parent()
            if child.signal is not None:
                return 128 + child.signal
            time.sleep(POLL_SECONDS)
        if attempt.core_count:
            attempt = dataclasses.replace(attempt, cores=reserve(attempt.core_count, stack))
        return _train(attempt, child)


def _takes_turn(stack: ExitStack, directory: Path) -> bool:
    """Whether this is the only attempt at the run, and no other process trains it; `stack` then keeps it so."""
    with ExitStack() as own:
        try:
            own.enter_context(locks.exclusive(directory / LOCK, "Another attempt has its turn."))
        except BlockingIOError:
            return False
        # A training outlives its attempt for the time that it takes to save.
        if locks.is_held(directory / ".lock"):
            return False
        stack.push(own.pop_all())
    return True


def _train(attempt: Attempt, child: _Child) -> int:
    directory = Path(attempt.directory)
    if is_finished(directory, attempt.policies, attempt.updates, evaluated=attempt.evaluated):
        return 0
    if attempt.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, attempt.cores)
    started = time.time()
    print(f"{ATTEMPT_LINE} on {platform.node()} at {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
    code, peak = child.run()
    path = directory / ATTEMPT
    before = read_json(path)["peak_bytes"] if path.exists() else 0
    record = {"exit_code": code, "host": platform.node(), "started": started, "ended": time.time()}
    write_json(path, record | {"peak_bytes": max(before, peak)})
    return code


def _stop_with_parent() -> Callable[[], Any] | None:
    """What a new process calls so that Linux sends it a SIGTERM when its parent ends; None elsewhere."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    given = Attempt(**fields | {name: tuple(fields[name]) for name in ("command", "policies", "cores")})
    given.write_to_log()
    sys.exit(entry.guarded(lambda: main(given)))
