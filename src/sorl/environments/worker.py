"""The program of the processes behind a pool: one makes an environment and forks itself into the workers.

It must not import jax, and has one thread: only so can it be forked.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from sorl.environments.interface import Environment
from sorl.environments.named import named_environment


COMMAND = "from sorl.environments.worker import work; work()"
"""The program, for `python -c`; its arguments are those of `work`."""

WORKER_NICENESS = 5
"""Nice level of workers: at equal priority a worker that receives an action preempts the process that still sends the
others."""

PATIENCE = 2.0
"""Seconds that workers have to end by themselves once the pool is closed; then they are killed."""

_MOST_CHARACTERS = 4_000


class Started(NamedTuple):
    """The first message about a worker, from the process that forked it."""

    pid: int


class Failure(NamedTuple):
    """An exception on its way from a worker to the pool."""

    message: str
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """The message on one line, and both texts cut: up to 16 KB are sent in one piece, so that a reader never waits
        for half of a message."""
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return cls(message[:_MOST_CHARACTERS], "".join(traceback.format_exception(error))[-_MOST_CHARACTERS:])


def work() -> None:
    """Makes an environment, forks a worker for each descriptor, and ends them all when the lifeline ends.

    Its command line is `env_name success_timing lifeline alive descriptor...`. The pool holds the other end of
    `lifeline` open as long as it lives, and writes to it when the workers are to be killed. All processes hold `alive`
    open: the pool sees by it when all have ended.
    """
    # Signals reach whole groups and jobs of processes; the parent decides what they mean. (SIGTTOU would stop a
    # worker that prints a warning to a terminal.)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGTTOU):
        signal.signal(name, signal.SIG_IGN)
    env_name, success_timing, lifeline, _, *descriptors = sys.argv[1:]
    connections = [Connection(int(descriptor)) for descriptor in descriptors]
    children: list[int] = []
    try:
        environment = named_environment(env_name, success_timing)  # type: ignore[arg-type]
        os.nice(WORKER_NICENESS)
        while connections:
            children.append(_fork(connections, environment))
    except Exception as error:
        for connection in connections:
            with contextlib.suppress(OSError):  # the parent has ended
                connection.send(Failure.of(error))
    try:
        Connection(int(lifeline), writable=False).recv_bytes()
        patience = 0.0
    except (EOFError, OSError):
        patience = PATIENCE
    end(children, patience)


def _fork(connections: list[Connection], environment: Environment) -> int:
    """Forks a worker for the first of the connections, which it takes off the list, and **returns** its process id.

    The pool is told that id first: it can name a worker that is stopped before it does anything.
    """
    told, tell = os.pipe()
    child = os.fork()
    connection = connections.pop(0)
    if child == 0:
        for other in connections:
            other.close()  # its end must be seen when its own worker ends
        code = 1
        try:
            os.close(tell)
            os.read(told, 1)
            serve(connection, environment)
            code = 0
        except BaseException:
            traceback.print_exc()  # the pool sees no more than that the worker died
        finally:
            os._exit(code)
    with contextlib.suppress(OSError):  # the parent has ended
        connection.send(Started(child))
    for descriptor in (tell, told):
        os.close(descriptor)
    connection.close()
    return child


def serve(connection: Connection, environment: Environment) -> None:
    """Answers a pool's calls to one environment until the pool closes its end."""
    # It stays open: the pool kills a worker whose end it sees, which may still be printing why it failed.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            method, arguments = connection.recv()
            reply: Any
            try:
                reply = getattr(environment, method)(*arguments)
            except Exception as error:
                reply = Failure.of(error)
            connection.send(reply)


def end(children: Sequence[int], patience: float) -> None:
    """Waits until these children of this process have ended, and kills what has not after `patience` seconds."""
    left, deadline = list(children), time.monotonic() + patience
    while left:
        if time.monotonic() > deadline:
            for child in left:
                os.kill(child, signal.SIGKILL)
        left = [child for child in left if os.waitpid(child, os.WNOHANG)[0] == 0]
        time.sleep(0.01)
