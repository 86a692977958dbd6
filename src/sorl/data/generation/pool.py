"""The worker processes of a generation: started, given episodes, timed, and ended however the generation ends."""

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
"""Seconds for one episode after which a worker is taken to hang; most episodes take less than 30."""

LONGEST_WAIT = 60.0
"""Seconds of one call to the operating system, which refuses to wait for years."""

PATIENCE = 3.0
"""Seconds that workers have to end by themselves when a generation ends; then they are killed."""

COMMAND = "from sorl.data.generation.worker import main; main()"

AGAIN = "run the same command again to continue after the finished episodes"


class GenerationWorkerError(RuntimeError):
    """A worker process could not be started, failed, died or hung; one sentence."""


class _Worker:
    """One process, and the episode that it collects."""

    def __init__(self, job: dict[str, Any]):
        command, environment = worker_command(COMMAND)
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        # It leads a process group of its own, so that Ctrl-C in the terminal reaches the main program alone.
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, process_group=0)
        assert self.process.stdin is not None and self.process.stdout is not None
        self._requests, self.replies = self.process.stdin, self.process.stdout
        self._episode: Episode | None = None
        self.deadline = math.inf
        """When the episode under way is overdue, on the monotonic clock."""
        self._send(job)

    def collect(self, episode: Episode, timeout: float) -> None:
        """Has the worker collect one episode, without waiting for it."""
        self._episode = episode
        self.deadline = time.monotonic() + timeout
        self._send(episode)

    def _send(self, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # a dead worker is recognised by its missing reply
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()

    def reply(self) -> int:
        """The number of rows of the episode just collected; raises a `GenerationWorkerError` if there is none."""
        self.deadline = math.inf
        line = self.replies.readline()
        if not line:
            raise GenerationWorkerError(f"{self} {_end_of(self.process.wait())}; {AGAIN}.")
        answer = json.loads(line)
        if "failure" in answer:
            raise GenerationWorkerError(f"{self} failed ({answer['failure']}); {AGAIN}.")
        return answer["rows"]

    def close(self) -> None:
        """Ends the worker's input, and with it the worker once its episode is finished."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()

    def __str__(self) -> str:
        place = "" if self._episode is None else ", split {}, episode {}".format(*self._episode)
        return f"The generation worker with process id {self.process.pid}{place},"


def collect(job: dict[str, Any], episodes: Sequence[Episode], count: int, timeout: float) -> Generator[int, None, None]:
    """Has at most `count` worker processes collect episodes; yields the number of rows as each is finished.

    **Arguments:** `job`, what `sorl.data.generation.worker` expects first; `timeout`, seconds for one episode, in which
    the first one's includes the start of its worker.

    Raises a `GenerationWorkerError` for a worker that fails, dies or does not finish in time. However this ends, an
    interruption included, no worker is left after a few seconds.
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
    """Waits for the next worker that replies or has died; raises a `GenerationWorkerError` if one is overdue."""
    first = min(workers, key=lambda worker: worker.deadline)
    while True:
        remaining = first.deadline - time.monotonic()
        if ready := selector.select(min(max(0.0, remaining), LONGEST_WAIT)):
            return ready[0][0].data
        if remaining <= 0:
            raise GenerationWorkerError(
                f"{first} has not finished within {timeout:g} s and was killed; {AGAIN}, with a longer "
                "--worker-timeout if episodes take so long here."
            )


@contextlib.contextmanager
def _started(job: dict[str, Any], count: int) -> Iterator[list[_Worker]]:
    """Starts worker processes, and ends them.

    They are programs of their own rather than `multiprocessing`'s children, because those import the main program
    again: it would cost every worker an import of jax, and a script without a `__main__` guard its sanity.
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
    """Waits until the workers have ended by themselves, and kills those that have not, stopped ones included."""
    try:
        for worker in workers:
            worker.close()
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(subprocess.TimeoutExpired):
            for worker in workers:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.process.kill()  # nothing happens to one that has ended
        for worker in workers:
            worker.process.wait()
            worker.replies.close()


def _end_of(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    return f"was ended by {name} (if memory ran out, give fewer --workers)"
