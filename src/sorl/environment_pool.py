"""OGBench's environments, one to a worker process: they simulate while the policy decides.

Worker processes import this module, so it must not import jax.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sorl.environments import Environment, Outcome, SerialEnvironments, SuccessTiming, refuse_unplayable


DEFAULT_WORKERS = 50
"""Workers of a pool, as many as an evaluation usually has episodes: the more of them wait for actions, the more are
decided at once, on two cores too."""


WORKER_NICENESS = 5
"""How far workers stand back: else each one sent an action takes its sender's core before the others have theirs."""


class EnvironmentWorkerError(RuntimeError):
    """A worker process failed or died; its own traceback, where there is one, is attached as a note."""


class EnvironmentPool:
    """Environments in a worker process each, until `close`; the interface and the results of `SerialEnvironments`.

    One process is started, makes an environment (a second, 170 MB) and forks itself into the workers: 20 ms and 10 MB
    each, where making an environment would take a second and 170 MB again. It can be forked because it has one thread:
    it is a program of its own, which imports neither the main program nor jax. More workers than cores are no loss: the
    operating system balances the load. All end when this process does, however it ends, and leave Ctrl-C to it.
    """

    def __init__(self, env_name: str, *, workers: int | None = None, success_timing: SuccessTiming = "pre"):
        """Starts the processes without waiting for them.

        **Arguments:** `env_name` and `success_timing` as for `SerialEnvironments`; `workers`, how many episodes play
        side by side (None: `DEFAULT_WORKERS`); the results do not depend on it.

        Raises a `ValueError` for an unknown name or a count below 1.
        """
        workers = DEFAULT_WORKERS if workers is None else workers
        refuse_unplayable(env_name, workers)
        self.env_name = env_name
        self.success_timing: SuccessTiming = success_timing
        pipes = [Pipe() for _ in range(workers)]
        self._connections = [ours for ours, _ in pipes]
        self._under_way: set[int] = set()
        self._selector = selectors.DefaultSelector()
        for slot, connection in enumerate(self._connections):
            self._selector.register(connection, selectors.EVENT_READ, slot)
        descriptors = [theirs.fileno() for _, theirs in pipes]
        command = [sys.executable, "-c", "from sorl.environment_pool import work; work()", env_name, success_timing]
        # One thread, and no renderer: what runs threads or holds a display must not be forked.
        settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MUJOCO_GL": "disable"}
        self._template = subprocess.Popen(
            command + [str(descriptor) for descriptor in descriptors],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        for _, theirs in pipes:
            theirs.close()

    def __len__(self) -> int:
        """As `SerialEnvironments.__len__`."""
        return len(self._connections)

    def sizes(self) -> tuple[int, int]:
        """As `SerialEnvironments.sizes`."""
        return self._ask("sizes", [0], [()])[0]

    def reset(
        self, slots: Int[np.ndarray, " slots"], seeds: Int[np.ndarray, " slots"]
    ) -> Float[np.ndarray, "slots observation"]:
        """As `SerialEnvironments.reset`."""
        return np.stack(self._ask("reset", slots, [(int(seed),) for seed in seeds]))

    def step_async(self, slots: Int[np.ndarray, " slots"], actions: Float[np.ndarray, "slots action"]) -> None:
        """As `SerialEnvironments.step_async`."""
        with self._usable():
            self._send("step", slots, [(action,) for action in actions])
            self._under_way.update(slots.tolist())

    def step_wait(self, least: int) -> tuple[Int[np.ndarray, " done"], Outcome]:
        """As `SerialEnvironments.step_wait`."""
        with self._usable():
            rows = self._answers(least)
        return np.array(list(rows)), Outcome.of(list(rows.values()))

    def abandon(self) -> None:
        """As `SerialEnvironments.abandon`."""
        if self._under_way and not self._closed:
            with self._usable():
                self._answers(len(self._under_way))

    def close(self, patience: float = 10.0) -> None:
        """Ends the workers; kills what has not ended after `patience` seconds."""
        self._selector.close()
        for connection in self._connections:
            connection.close()
        try:
            self._template.wait(patience)
        except subprocess.TimeoutExpired:
            self._template.kill()
            self._template.wait()

    def __enter__(self) -> "EnvironmentPool":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def _closed(self) -> bool:
        return self._connections[0].closed

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Closes the pool on any failure: an answer left behind would be taken for that of the next call."""
        if self._closed:
            raise EnvironmentWorkerError(f"The pool of {self.env_name} is closed; make a new one.")
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _ask(self, method: str, slots: Any, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Calls a method of the environments in `slots`, all at the same time."""
        with self._usable():
            self._send(method, slots, arguments)
            return [self._receive(self._connections[slot]) for slot in slots]

    def _send(self, method: str, slots: Any, arguments: list[tuple[Any, ...]]) -> None:
        for slot, own in zip(slots, arguments, strict=True):
            with contextlib.suppress(BrokenPipeError):  # a dead worker is told apart by its missing reply
                self._connections[slot].send((method, own))

    def _answers(self, least: int) -> dict[int, Any]:
        """Takes all answers that are there, and waits until they are at least `least`; by slot."""
        answers: dict[int, Any] = {}
        while ready := self._selector.select(None if len(answers) < least else 0):
            for key, _ in ready:
                answers[key.data] = self._receive(self._connections[key.data])
                self._under_way.discard(key.data)
        return answers

    def _receive(self, connection: Connection) -> Any:
        try:
            reply = connection.recv()
        except (EOFError, ConnectionResetError):
            raise EnvironmentWorkerError(
                f"A worker process of {self.env_name} died; give fewer workers if memory ran out."
            ) from None
        if isinstance(reply, _Failure):
            error = EnvironmentWorkerError(f"An environment worker of {self.env_name} failed: {reply.message}")
            error.add_note(reply.traceback)
            raise error
        return reply


Environments = SerialEnvironments | EnvironmentPool
"""What an evaluation plays on; the results do not depend on which."""


class _Failure(NamedTuple):
    """An exception on its way from a worker to the pool."""

    message: str
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> "_Failure":
        return cls(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def work() -> None:
    """The program of the process that a pool starts: `env_name success_timing file_descriptor...`."""
    # Ctrl-C and a scheduler's warning reach the whole group of processes; what they mean is for the parent to say.
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    env_name, success_timing, *descriptors = sys.argv[1:]
    connections = [Connection(int(descriptor)) for descriptor in descriptors]
    try:
        environment = SerialEnvironments(env_name, success_timing=success_timing)[0]  # type: ignore[arg-type]
    except Exception as error:
        for connection in connections:
            connection.send(_Failure.of(error))
        return
    os.nice(WORKER_NICENESS)
    while connections:
        connection = connections.pop(0)
        if os.fork() == 0:
            for other in connections:
                other.close()  # its end must be seen when its own worker ends
            try:
                serve(connection, environment)
            finally:
                os._exit(0)
        connection.close()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def serve(connection: Connection, environment: Environment) -> None:
    """Answers a pool's calls to one environment until its end of the pipe is closed."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError), connection:
        while True:
            method, arguments = connection.recv()
            try:
                reply = getattr(environment, method)(*arguments)
            except Exception as error:
                reply = _Failure.of(error)
            connection.send(reply)
