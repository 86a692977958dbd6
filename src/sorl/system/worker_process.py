"""How worker processes are started: as programs of their own that find this process's packages and nothing else."""

import os
import sys
from pathlib import Path


SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Environment variable with which Python does not search the current directory for modules. Unlike the flag -P it holds
for the programs that a worker starts too, as glfw does to look for its library."""


def worker_command(code: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment variables of a worker, for `subprocess.Popen`.

    **Arguments:** `code`, Python statements that import from sorl; `arguments`, its `sys.argv[1:]`.

    **Returns:** the command, and all environment variables. The worker searches the directories that this process
    searches for modules, except the current directory and the directory of the main script: a file of the user's that
    is named like a module of the standard library would be executed in its place.
    """
    unsafe = {os.path.realpath(directory) for directory in (_current_directory(), _script_directory()) if directory}
    paths = [os.path.abspath(path) for path in sys.path if path]
    trusted = [path for path in paths if os.path.realpath(path) not in unsafe]
    # Last, so that nothing beside the package shadows the standard library.
    home = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*trusted, home]), **SAFE_PATH}
    return [sys.executable, "-c", code, *arguments], environment


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return None


def _script_directory() -> str | None:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return None if script is None else os.path.dirname(os.path.abspath(script))
