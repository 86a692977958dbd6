"""The program of one generation worker: it reads the episodes to collect from stdin, and reports on stdout.

Both streams carry one JSON value per line. The input is the job, then one episode (split and number) at a time. The
answer to each episode is `{"rows": n}`, or `{"failure": reason}` before the worker exits. The worker exits at the end
of stdin, so it outlives its parent by at most one episode; on Linux it dies with its parent.
"""

import contextlib
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
"""An option of Linux's `prctl`."""

LONGEST_REASON = 400
"""The most characters of a failure that are reported, few enough for one atomic write to the pipe."""


def main() -> None:
    """Collects episodes until stdin ends."""
    _die_with_parent()
    # A signal may be sent to the whole process group; only the parent reacts to it, and ends its workers. (SIGTTOU
    # would stop a worker that prints a warning to a terminal.)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGTTOU):
        signal.signal(name, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # so that a simulator's prints do not mix with replies
    with contextlib.suppress(BrokenPipeError):  # the parent was killed, so nobody reads the report
        try:
            _collect_all(replies)
        except Exception as error:
            text = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
            reason = " ".join(text.split()).rstrip(".")
            _write(replies, {"failure": reason[:LONGEST_REASON]})


def _die_with_parent() -> None:
    """Makes Linux kill this process when its parent dies, even if it is stopped and cannot notice the end of stdin."""
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
    os.write(replies, json.dumps(message).encode() + b"\n")  # unbuffered, so that nothing remains to write at exit
