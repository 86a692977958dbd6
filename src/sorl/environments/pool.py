"""Environments in one worker process each, which simulate while the policy computes actions."""

import contextlib
import math
import pickle
import selectors
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing import Pipe
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sorl.environments.interface import Outcome, SuccessTiming
from sorl.environments.named import is_ogbench, module_directories, refuse_unplayable
from sorl.environments.processes import PATIENCE, WorkerProcesses
from sorl.environments.serial import SerialEnvironments
from sorl.environments.worker import Failure, Started


DEFAULT_WORKERS = 50
"""Default number of workers, equal to the usual number of episodes of an evaluation: with more workers, more actions
are computed in one batch, which helps even on two cores."""

STEP_TIMEOUT = 300.0
"""Seconds after which a worker that has not answered counts as hung."""

START_TIMEOUT = 120.0
"""Minimum time-out in seconds for the start of the workers, which imports the simulator."""

_WAKE = -1
"""What the selector calls the pipe of `EnvironmentPool.wake`, which has no slot."""

_SLICE = 0.2
"""Seconds of one wait; after each wait, time-outs are checked."""


class EnvironmentWorkerError(RuntimeError):
    """A worker process failed, died or hung; its traceback, if there is one, is attached as a note."""


class EnvironmentPool:
    """Environments in one worker process each, with the interface and the results of `SerialEnvironments`.

    More workers than cores do no harm, because the operating system balances the load; see `WorkerProcesses`.

    If a worker fails, dies or does not answer within the time-out, the pool is closed and all its processes end.
    """

    in_this_process = False
    """As `SerialEnvironments.in_this_process`."""

    def __init__(
        self,
        env_name: str,
        *,
        workers: int | None = None,
        success_timing: SuccessTiming = "pre",
        step_timeout: float = STEP_TIMEOUT,
    ):
        """Starts the processes without waiting for them.

        **Arguments:** `env_name` and `success_timing` as for `SerialEnvironments`; `workers`, the number of parallel
        episodes (None: `DEFAULT_WORKERS`), which does not affect results; `step_timeout`, the seconds after which a
        step or a reset counts as hung. Only time that the pool spends waiting counts; the time-out for the start of the
        workers is at least `START_TIMEOUT`.

        Raises a `ValueError` for an unknown name, a number below 1 or a time-out that is not positive, an `ImportError`
        if a requirement of the environment is missing, and an `EnvironmentWorkerError` if the processes cannot be
        started.
        """
        workers = DEFAULT_WORKERS if workers is None else workers
        refuse_unplayable(env_name, workers, success_timing)
        refuse_timeout(step_timeout)
        directories = module_directories(env_name)
        self.env_name = env_name
        self.success_timing: SuccessTiming | None = success_timing if is_ogbench(env_name) else None
        self._step_timeout = step_timeout
        # Time-outs count waiting time only, so each call is compared with the clock of waiting at which it was sent.
        self._waited = 0.0  # seconds spent waiting; time-outs are measured in this time
        self._since = [0.0] * workers  # the value of `_waited` when each slot's current call was sent
        self._pids: dict[int, int] = {}  # process ids of the started workers, by slot
        self._under_way: set[int] = set()
        self._stale = [0] * workers  # number of pending answers to discard, by slot
        # Start the processes; `_answer` reports those that fail later.
        try:
            self._processes = WorkerProcesses(env_name, workers, success_timing, directories)
        except OSError as error:
            # The error names a file if that is what could not be executed; otherwise the system lacks room.
            remedy = f"check that you may execute {error.filename}" if error.filename else "give fewer workers"
            raise EnvironmentWorkerError(
                f"{workers} workers of {env_name} cannot be started ({error.strerror}); {remedy}."
            ) from error

        self._connections = self._processes.connections
        self._selector = selectors.DefaultSelector()
        for slot, connection in enumerate(self._connections):
            self._selector.register(connection, selectors.EVENT_READ, slot)
        # Other threads end a wait through a pipe of its own, in which at most one message waits to be read.
        self._woken, self._waker = Pipe(duplex=False)
        self._selector.register(self._woken, selectors.EVENT_READ, _WAKE)
        self._waking, self._awake = threading.Lock(), False

    def __len__(self) -> int:
        """As `SerialEnvironments.__len__`."""
        return len(self._connections)

    def sizes(self) -> tuple[int, int]:
        """As `SerialEnvironments.sizes`."""
        return self._ask("sizes", [0], [()])[0]

    def action_range(self) -> tuple[Float[np.ndarray, " action"], Float[np.ndarray, " action"]]:
        """As `SerialEnvironments.action_range`."""
        return self._ask("action_range", [0], [()])[0]

    def reset(
        self, slots: Int[np.ndarray, " slots"], seeds: Int[np.ndarray, " slots"]
    ) -> Float[np.ndarray, "slots observation"]:
        """As `SerialEnvironments.reset`."""
        return np.stack(self._ask("reset", slots.tolist(), [(int(seed),) for seed in seeds]))

    def step_async(self, slots: Int[np.ndarray, " slots"], actions: Float[np.ndarray, "slots action"]) -> None:
        """As `SerialEnvironments.step_async`."""
        with self._usable():
            self._send("step", slots.tolist(), [(action,) for action in actions])
            self._under_way.update(slots.tolist())

    def step_wait(self, least: int) -> tuple[Int[np.ndarray, " done"], Outcome] | None:
        """As `SerialEnvironments.step_wait`, or, after `wake`, the steps that have finished by then (None: none)."""
        with self._usable():
            rows = self._answers(least)
        return (np.array(list(rows)), Outcome.of(list(rows.values()))) if rows else None

    def wake(self) -> None:
        """Ends the current wait of `step_wait`, or the next one; any thread may call it."""
        with self._waking:
            if not self._awake and not self._waker.closed:
                self._waker.send_bytes(b"")
                self._awake = True

    def abandon(self) -> None:
        """As `SerialEnvironments.abandon`; does not wait for the workers."""
        for slot in self._under_way:
            self._stale[slot] += 1
        self._under_way.clear()

    @property
    def closed(self) -> bool:
        """Whether the pool is closed and cannot be used any more."""
        return self._connections[0].closed

    def close(self, patience: float = PATIENCE) -> None:
        """Ends the processes; kills those that have not ended after `patience` seconds. Closing twice does nothing."""
        if self.closed:
            return
        self._selector.close()
        with self._waking:
            self._waker.close()
            self._woken.close()
        self._processes.end(patience)

    def kill(self) -> None:
        """As `WorkerProcesses.kill`."""
        self._processes.kill()

    def __enter__(self) -> "EnvironmentPool":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.close(PATIENCE if kind is None else 0.0)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Closes the pool on any failure, because a pending answer would be taken for that of the next call."""
        if self.closed:
            raise EnvironmentWorkerError(f"The pool of {self.env_name} is closed; make a new one.")
        try:
            yield
        except BaseException:
            self.close(0.0)
            raise

    def _ask(self, method: str, slots: list[int], arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Calls a method of the environments in `slots` in parallel, and returns the answers."""
        with self._usable():
            self._send(method, slots, arguments)
            return [self._answer(slot) for slot in slots]

    def _send(self, method: str, slots: list[int], arguments: list[tuple[Any, ...]]) -> None:
        for slot, own in zip(slots, arguments, strict=True):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the missing reply reports it
                self._connections[slot].send_bytes(pickle.dumps((method, own)))  # `send` takes 1.5 times as long
            if not self._stale[slot]:
                self._since[slot] = self._waited

    def _answer(self, slot: int) -> Any:
        """Waits for the answer of one slot."""
        answer = None
        while answer is None:
            start = time.monotonic()
            ready = self._connections[slot].poll(_SLICE)
            self._count_wait(start)
            if ready:
                answer = self._receive(slot)
            else:
                self._refuse_overdue([slot])
        return answer

    def _answers(self, least: int) -> dict[int, Any]:
        """Waits for `least` answers to steps or for `wake`, and **returns** all that have arrived, by slot."""
        answers: dict[int, Any] = {}
        woken = False
        while True:
            start, enough = time.monotonic(), woken or len(answers) >= least
            ready = {key.data for key, _ in self._selector.select(0 if enough else _SLICE)}
            self._count_wait(start)
            if enough and not ready:
                return answers
            if _WAKE in ready:
                woken = True
                self._read_wake()
            for slot in ready - {_WAKE}:
                answer = self._receive(slot)
                if answer is not None:
                    answers[slot] = answer
                    self._under_way.discard(slot)
            self._refuse_overdue(self._under_way - ready)

    def _read_wake(self) -> None:
        with self._waking:
            self._woken.recv_bytes()
            self._awake = False

    def _receive(self, slot: int) -> Any | None:
        """Reads one message; **returns** the answer to the slot's last call, or None if the message is not that."""
        try:
            reply = self._connections[slot].recv()
        except (EOFError, ConnectionResetError):
            raise EnvironmentWorkerError(f"{self._name(slot)} died; give fewer workers if memory ran out.") from None
        if isinstance(reply, Started):
            self._pids[slot], self._since[slot] = reply.pid, self._waited
            return None
        if self._stale[slot]:
            self._stale[slot], self._since[slot] = self._stale[slot] - 1, self._waited
            return None
        if isinstance(reply, Failure):
            error = EnvironmentWorkerError(f"{self._name(slot)} failed: {reply.message}")
            error.add_note(reply.traceback)
            raise error
        return reply

    def _count_wait(self, start: float) -> None:
        # A wait counts as one slice at most, so that time during which all processes were suspended does not count.
        self._waited += min(time.monotonic() - start, _SLICE)

    def _refuse_overdue(self, slots: Iterable[int]) -> None:
        """Raises an `EnvironmentWorkerError` if one of these slots has not answered within its time-out."""
        for slot in slots:
            started = slot in self._pids
            limit = self._step_timeout if started else max(self._step_timeout, START_TIMEOUT)
            if self._waited - self._since[slot] > limit:
                raise EnvironmentWorkerError(
                    f"{self._name(slot)} did not {'answer' if started else 'start'} within {limit:g} seconds and was "
                    "killed; give a longer step timeout if the simulator is only slow."
                )

    def _name(self, slot: int) -> str:
        if slot in self._pids:
            return f"Worker {slot} of {self.env_name} (process {self._pids[slot]})"
        return f"The process that starts the workers of {self.env_name} (process {self._processes.pid})"


Environments = SerialEnvironments | EnvironmentPool
"""The environments of an evaluation; its results do not depend on the kind."""


def refuse_timeout(seconds: float) -> None:
    """Raises a `ValueError`, one sentence, for a step's time-out that is not a positive number of seconds."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"step_timeout is {seconds}; give a number of seconds > 0, such as {STEP_TIMEOUT:g}.")
