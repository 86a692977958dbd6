"""The worker processes of a generation: they are started, given episodes, timed, and always ended."""

import contextlib
import json
import math
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from sorl.system.worker_process import worker_command


Episode = tuple[int, int]
"""An episode's split and its number in the split."""

WORKER_TIMEOUT = 600.0
"""Seconds allowed for one episode, after which a worker counts as hung; most episodes take less than 30."""

LONGEST_WAIT = 60.0
"""Seconds of one wait; the operating system refuses very long ones."""

PATIENCE = 3.0
"""Seconds that workers have to exit by themselves when a generation ends; then they are killed."""

COMMAND = "from sorl.data.generation.worker import main; main()"

AGAIN = "run the same command again to continue after the finished episodes"


class GenerationWorkerError(RuntimeError):
    """A worker process could not be started, failed, died or hung; the message is one sentence."""


class _Worker:
    """One worker process, and the episode that it is collecting."""

    def __init__(self, job: dict[str, Any]):
        command, environment = worker_command(COMMAND)
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        # It has a process group of its own, so that Ctrl-C in the terminal reaches only the main program.
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, process_group=0)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._requests, self.replies = self.process.stdin, self.process.stdout
        self._episode: Episode | None = None
        self.deadline = math.inf
        """The time on the monotonic clock at which the current episode is overdue."""
        self._send(job)

    def collect(self, episode: Episode, timeout: float) -> None:
        """Asks the worker to collect one episode, without waiting for it."""
        self._episode = episode
        self.deadline = time.monotonic() + timeout
        self._send(episode)

    def _send(self, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # `reply` detects a dead worker
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def reply(self) -> int:
        """The number of rows of the finished episode; raises a `GenerationWorkerError` if the worker failed or died."""
        self.deadline = math.inf
        line = self.replies.readline()
        if not line:
            raise GenerationWorkerError(f"{self} {_end_of(self.process.wait())}; {AGAIN}.")
        answer = json.loads(line)
        if "failure" in answer:
            raise GenerationWorkerError(f"{self} failed ({answer['failure']}); {AGAIN}.")
        return answer["rows"]

    def close(self) -> None:
        """Closes the worker's input, after which the worker exits once its episode is finished."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()

    def __str__(self) -> str:
        place = "" if self._episode is None else ", split {}, episode {}".format(*self._episode)
        return f"The generation worker with process id {self.process.pid}{place},"


def collect(job: dict[str, Any], episodes: Sequence[Episode], count: int, timeout: float) -> Generator[int, None, None]:
    """Collects episodes in at most `count` worker processes, and yields each finished episode's number of rows.

    **Arguments:** `job`, the first message to `sorl.data.generation.worker`; `timeout`, the seconds allowed for one
    episode, which include the start of the worker for its first.

    Raises a `GenerationWorkerError` if a worker fails, dies or does not finish in time. In every case, also after an
    interruption, all workers have ended after a few seconds.
    """
    waiting = deque(episodes)
    with _started(job, min(count, len(waiting))) as workers, selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.replies, selectors.EVENT_READ, worker)
            worker.collect(waiting.popleft(), timeout)
        for _ in episodes:
            worker = _next(selector, workers, timeout)
            yield worker.reply()
            if waiting:
                worker.collect(waiting.popleft(), timeout)
            else:
                selector.unregister(worker.replies)


def _next(selector: selectors.BaseSelector, workers: Sequence[_Worker], timeout: float) -> _Worker:
    """Waits for the next worker that replies or dies; raises a `GenerationWorkerError` if one is overdue."""
    first = min(workers, key=lambda worker: worker.deadline)
    while True:
        remaining = first.deadline - time.monotonic()
        if ready := selector.select(min(max(0.0, remaining), LONGEST_WAIT)):
            return ready[0][0].data
        if remaining <= 0:
            raise GenerationWorkerError(
                f"{first} has not finished within {timeout:g} s and was killed; {AGAIN}, with a longer "
                "--worker-timeout if episodes take that long here."
            )


@contextlib.contextmanager
def _started(job: dict[str, Any], count: int) -> Iterator[list[_Worker]]:
    """A context with running worker processes, which end with it.

    They are started with `subprocess`, because `multiprocessing` imports the main program again in every child: each
    worker would import jax, and a script without a `__main__` guard would start over.
    """
    workers: list[_Worker] = []
    try:
        try:
            for _ in range(count):
                workers.append(_Worker(job))
        except OSError as error:
            raise GenerationWorkerError(
                f"{count} generation workers cannot be started ({error.strerror}); give fewer --workers."
            ) from error
        yield workers
    finally:
        _end(workers)


def _end(workers: Sequence[_Worker]) -> None:
    """Waits until the workers have exited by themselves, and kills those that have not (even if they are stopped)."""
    try:
        for worker in workers:
            worker.close()
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(subprocess.TimeoutExpired):
            for worker in workers:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()  # does nothing if it has exited
        for worker in workers:
            worker.process.wait()
            worker.replies.close()


def _end_of(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    return f"was ended by {name} (if memory ran out, give fewer --workers)"
