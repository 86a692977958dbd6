"""The command that starts a worker process: a new Python that finds this process's packages and nothing else."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path


SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""The environment variable that stops Python from searching the current directory for modules.

Unlike the flag -P, it also holds for programs that a worker starts (glfw starts one to find its library)."""


def worker_command(code: str, *arguments: str, search: Sequence[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The command and the environment variables of a worker, for `subprocess.Popen`.

    **Arguments:** `code`, Python statements that import from sorl; `arguments`, the worker's `sys.argv[1:]`; `search`,
    directories to search for modules after all others.

    **Returns:** the command, and all environment variables. The worker searches the same directories for modules as
    this process, except the current directory and the main script's directory: a user's file there that has the name
    of a standard library module would be executed in its place. Files in `search` cannot shadow anything.
    """
    unsafe = {os.path.realpath(directory) for directory in (_current_directory(), _script_directory()) if directory}
    paths = [os.path.abspath(path) for path in sys.path if path]
    trusted = [path for path in paths if os.path.realpath(path) not in unsafe]
    # The package's directory comes after these, and `search` last, so that nothing there shadows the standard library.
    home = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*trusted, home, *search]), **SAFE_PATH}
    return [sys.executable, "-c", code, *arguments], environment


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return None


def _script_directory() -> str | None:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return None if script is None else os.path.dirname(os.path.abspath(script))
