"""Runs a limited number of processes in parallel, each on its share of the CPU cores; logs output and peak memory."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sorl.system.files import write_json


class Jobs:
    """Runs at most `count` processes in parallel, each on its share of the cores."""

    def __init__(self, count: int):
        self._count, self._running, self._stopped = count, set(), False
        self._lock, self._slots = threading.Lock(), iter(range(count))

    def run(self, commands: Sequence[tuple[list[str], Path]]) -> list[int]:
        """Runs (command, directory) pairs, each with log.txt in its directory; **returns** their exit codes."""
        with ThreadPoolExecutor(self._count, initializer=self._take_share) as pool:
            try:
                return list(pool.map(lambda command: self._run(*command), commands))
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Starts no more processes, and asks the running ones to save and exit."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()

    def _take_share(self) -> None:
        # Processes inherit the affinity of the thread that starts them.
        if hasattr(os, "sched_setaffinity"):
            with self._lock:
                slot = next(self._slots)
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[slot :: self._count] or cores)

    def _run(self, command: list[str], directory: Path) -> int:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "log.txt").open("a") as log:
            with self._lock:
                if self._stopped:
                    return 1
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
                self._running.add(process)
            _, status, usage = os.wait4(process.pid, 0)
            with self._lock:
                self._running.remove(process)
                process.returncode = os.waitstatus_to_exitcode(status)
        _note_memory(directory, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        print(f"{directory}: exit code {process.returncode}", flush=True)
        return process.returncode


def _note_memory(directory: Path, peak: int) -> None:
    path = directory / "memory.json"
    before = json.loads(path.read_text())["peak_bytes"] if path.exists() else 0
    write_json(path, {"peak_bytes": max(before, peak)})
