"""The program of a pool's processes: one creates an environment and forks itself into the workers.

It must not import jax and must have one thread, so that it can be forked.
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
from sorl.system.error_places import users_line


COMMAND = "from sorl.environments.worker import work; work()"
"""The program, for `python -c`; its arguments are those of `work`."""

WORKER_NICENESS = 5
"""Nice level of workers: at equal priority, a worker that receives an action preempts the process that is still sending
the others."""

PATIENCE = 2.0
"""Seconds that workers have to end by themselves after the pool is closed; then they are killed."""

_MOST_CHARACTERS = 4_000


class Started(NamedTuple):
    """The first message about a worker, from the process that forked it."""

    pid: int


class Failure(NamedTuple):
    """An exception of a worker, as it is sent to the pool."""

    message: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Puts the message on one line, with the line of the user's own code, and cuts message and traceback.

        Up to 16 KB are sent in one piece, so that a reader never waits for the second half of a message.
        """
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        where = users_line(error)
        message = message[:_MOST_CHARACTERS] + ("" if where is None else f" ({where})")
        return cls(message, "".join(traceback.format_exception(error))[-_MOST_CHARACTERS:])


def work() -> None:
    """Creates an environment, forks a worker for each descriptor, and ends them all when the lifeline closes.

    The command line is `env_name success_timing lifeline alive descriptor...`. The pool keeps its end of `lifeline`
    open while it exists, and writes to it to have the workers killed. All processes keep `alive` open, so that the pool
    sees when the last one has ended.
    """
    # Ignore signals, which reach whole groups and jobs of processes: the parent handles them. (SIGTTOU would stop a
    # worker that prints a warning to a terminal.)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGTTOU):
        signal.signal(name, signal.SIG_IGN)
    env_name, success_timing, lifeline, _, *descriptors = sys.argv[1:]
    connections = [Connection(int(descriptor)) for descriptor in descriptors]
    children: list[int] = []
    # Create the environment once, then fork; if that fails, report it to every worker's connection.
    try:
        environment = named_environment(env_name, success_timing)  # type: ignore[arg-type]
        _refuse_jax(env_name)
        os.nice(WORKER_NICENESS)
        while connections:
            children.append(_fork(connections, environment))
    except (Exception, SystemExit) as error:
        for connection in connections:
            with contextlib.suppress(OSError):  # the parent has ended
                connection.send(Failure.of(error))
    # Wait until the pool is closed: the lifeline ends, or carries the message to kill the workers at once.
    try:
        Connection(int(lifeline), writable=False).recv_bytes()
        patience = 0.0
    except (EOFError, OSError):
        patience = PATIENCE
    end(children, patience)


def _refuse_jax(env_name: str) -> None:
    """Raises an `ImportError` if the environment's module imported jax, whose threads do not survive a fork."""
    if "jax" in sys.modules:
        raise ImportError(
            f"the module of {env_name} imports jax, which workers cannot use because they are forked; simulate with "
            "numpy, or keep jax out of what the module imports"
        )


def _fork(connections: list[Connection], environment: Environment) -> int:
    """Forks a worker for the first connection, which is removed from the list, and **returns** its process id.

    The process id is sent to the pool before the worker starts, so that the pool can name a worker that dies early.
    """
    told, tell = os.pipe()
    child = os.fork()
    connection = connections.pop(0)
    # In the worker: wait until the template has sent the process id, then serve.
    if child == 0:
        for other in connections:
            other.close()  # so that each connection closes when its own worker ends
        code = 1
        try:
            os.close(tell)
            os.read(told, 1)
            serve(connection, environment)
            code = 0
        except BaseException:
            traceback.print_exc()  # the pool only sees that the worker died
        finally:
            os._exit(code)
    # In the template: send the process id, then let the worker start.
    with contextlib.suppress(OSError):  # the parent has ended
        connection.send(Started(child))
    for descriptor in (tell, told):
        os.close(descriptor)
    connection.close()
    return child


def serve(connection: Connection, environment: Environment) -> None:
    """Answers a pool's calls to one environment until the pool closes its end."""
    # Keep the connection open: when it closes, the pool kills the worker, which may still be printing its error.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            method, arguments = connection.recv()
            reply: Any
            try:
                reply = getattr(environment, method)(*arguments)
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # an environment may call `sys.exit`
                reply = Failure.of(error)
            connection.send(reply)


def end(children: Sequence[int], patience: float) -> None:
    """Waits until these children of this process have ended, and kills the remaining ones after `patience` seconds."""
    left, deadline = list(children), time.monotonic() + patience
    while left:
        if time.monotonic() > deadline:
            for child in left:
                os.kill(child, signal.SIGKILL)
        left = [child for child in left if os.waitpid(child, os.WNOHANG)[0] == 0]
        time.sleep(0.01)
