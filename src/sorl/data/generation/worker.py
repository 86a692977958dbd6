"""The program of one generation worker: reads which episodes to collect from stdin, reports on stdout.

Both streams carry one JSON value a line: first the job, then the split and the number of one episode at a time, each
answered by `{"rows": n}` or, before the worker ends, `{"failure": reason}`. It ends when stdin does, so no worker
outlives the process that started it by more than an episode, and on Linux none at all.
"""

import ctypes
import json
import os
import pathlib
import signal
import sys
from typing import Any

from sorl.data.generation.episodes import collect_episode, make_recipe_environment
from sorl.data.generation.recipes import Recipe
from sorl.data.generation.shards import shard_path, write


PR_SET_PDEATHSIG = 1
"""Of Linux's `prctl`."""

LONGEST_REASON = 400
"""Characters of a failure that are reported, few enough to be written to the pipe at once."""


def main() -> None:
    """Runs until stdin ends."""
    _die_with_parent()
    # Signals may reach whole groups and jobs of processes; the parent decides what they mean. (SIGTTOU would stop a
    # worker that prints a warning to a terminal.)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGTTOU):
        signal.signal(name, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # what a simulator prints is no reply
    try:
        try:
            _collect_all(replies)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}".split()).rstrip(
                "."
            )
            _write(replies, {"failure": reason[:LONGEST_REASON]})
    except BrokenPipeError:
        pass  # the parent was killed: nobody is left to report to


def _die_with_parent() -> None:
    """Has Linux kill this process when its parent dies, also while it is stopped and cannot see that stdin ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _collect_all(replies: int) -> None:
    job = json.loads(sys.stdin.readline())
    recipe = Recipe(**job["recipe"])
    environment = make_recipe_environment(recipe)
    for line in sys.stdin:
        split, number = json.loads(line)
        rows = collect_episode(environment, recipe, (job["seed"], split, number))
        write(shard_path(pathlib.Path(job["folder"]), (split, number)), rows)
        _write(replies, {"rows": len(rows["terminals"])})


def _write(replies: int, message: dict[str, Any]) -> None:
    os.write(replies, json.dumps(message).encode() + b"\n")  # unbuffered, so that nothing is left to write at exit


if __name__ == "__main__":
    main()
