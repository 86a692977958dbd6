"""The processes of an `EnvironmentPool`: they are started together, and all end together."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from sorl.environments.interface import SuccessTiming
from sorl.environments.worker import COMMAND
from sorl.system.worker_process import worker_command


PATIENCE = 5.0
"""Seconds that the processes have to end by themselves after the pool is closed; then they are killed."""

_KILL_PATIENCE = 1.0
"""Seconds that the template process has to kill the workers; then the whole process group is killed."""


class WorkerProcesses:
    """One process, the template, which creates an environment and forks itself into the workers.

    Forking a worker takes 20 ms and 10 MB; creating an environment in each would take 1 s and 170 MB every time. It is
    safe because the template has one thread: it is a separate program that imports neither the main program nor jax.
    All these processes form their own process group, so that Ctrl-C in the terminal does not reach them; they end
    whenever this process ends, even if it is killed.
    """

    def __init__(self, env_name: str, workers: int, success_timing: SuccessTiming, directories: Sequence[str]):
        """Starts the processes without waiting for them; raises an `OSError` if that is impossible.

        **Arguments:** as for `EnvironmentPool`; `directories` in which the workers look for modules.
        """
        pipes = [Pipe() for _ in range(workers)]
        lifeline, self._lifeline = Pipe(duplex=False)
        self._alive, alive = Pipe(duplex=False)
        theirs = [lifeline, alive, *(end for _, end in pipes)]
        descriptors = [end.fileno() for end in theirs]
        command, environment = worker_command(
            COMMAND, env_name, success_timing, *map(str, descriptors), search=directories
        )
        # One thread and no renderer, because a process with threads or a display must not be forked.
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MUJOCO_GL": "disable"}
        self._template = subprocess.Popen(
            command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=environment, process_group=0
        )
        for end in theirs:
            end.close()
        self.connections: list[Connection] = [ours for ours, _ in pipes]
        """A connection to each worker."""
        self._ending = threading.Lock()

    @property
    def pid(self) -> int:
        """The process id of the template, which is also that of the process group."""
        return self._template.pid

    def end(self, patience: float) -> None:
        """Ends the processes; kills those that have not ended after `patience` seconds."""
        try:
            for connection in self.connections:
                connection.close()
            if patience:
                self._lifeline.close()
                self._await_end(patience)
        finally:
            self.kill()
            self._lifeline.close()
            self._alive.close()

    def kill(self) -> None:
        """Kills all processes. Any thread may call it; a thread that waits for an answer then gets an error."""
        with self._ending:
            if self._template.returncode is not None:
                return
            with contextlib.suppress(OSError):  # the template kills and reaps the workers, unless it hangs
                self._lifeline.send_bytes(b"kill")
            self._await_end(_KILL_PATIENCE)
            # The template has not been waited for, so its process id, also that of the group, cannot have been reused.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._template.pid, signal.SIGKILL)
            self._await_end(PATIENCE)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._template.wait(PATIENCE)

    def _await_end(self, patience: float) -> None:
        with contextlib.suppress(OSError):
            self._alive.poll(patience)  # the pipe closes when the last process has ended
