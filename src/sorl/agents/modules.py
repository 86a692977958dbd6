"""Imports a user's own modules of agents, which only the option `--agent-module` names.

Files never name a module to import, because a file from someone else must not choose which code runs.
"""

import importlib
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from sorl.agents.interface import AbstractAgent
from sorl.agents.registry import AGENTS, is_installed
from sorl.system.error_places import place


_options: dict[str, str] = {}
"""Maps an agent's name to its module or file, as given on the command line."""


def import_modules(names: Sequence[str]) -> None:
    """Imports modules that register agents, each once.

    **Arguments:** `names`, dotted names of modules, or paths of files that end in `.py`. The current directory and the
    directories of the files are searched last, after all others on `sys.path`.

    Raises a `ValueError`, one sentence, for a module that is missing, fails to import or registers no agent.
    """
    for name in names:
        before = set(AGENTS)
        module = _imported(name)
        own = [
            agent
            for agent, kind in AGENTS.items()
            if agent not in before or f"{kind.__module__}.".startswith(f"{module.__name__}.")
        ]
        if not own:
            raise ValueError(
                f"--agent-module {name} registers no agent; call sorl.register_agent on the class that it defines."
            )
        _options.update((agent, name) for agent in own)


def module_option(agent_class: type[AbstractAgent]) -> str:
    """The option ` --agent-module ..` that a printed command needs in order to find the agent, or an empty string."""
    name = _options.get(agent_class.__name__, agent_class.__module__)
    package = agent_class.__module__.partition(".")[0]
    if package in ("sorl", "__main__") or is_installed(agent_class):
        return ""
    return f" --agent-module {shlex.quote(name)}"


def _imported(name: str) -> ModuleType:
    # Find the name of the module, and the directory that Python has to search.
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        module, directory = path.stem, path.parent
        if not path.is_file():
            raise ValueError(f"--agent-module names {name}, and there is no such file; give its path.")
    else:
        path, module, directory = None, name, Path.cwd()
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
        importlib.invalidate_caches()
    # Import it, and report all failures in one sentence.
    try:
        if path is not None:
            _refuse_another_file(name, module, path)
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(
                f"--agent-module names {name}, and there is no such module; give a module that Python finds from here, "
                "or the path of a file that ends in .py."
            ) from error
        if isinstance(error, _OtherFile):
            raise ValueError(str(error)) from None
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(
            f"--agent-module {name} cannot be imported: {type(error).__name__}: {reason} ({place(error)}); mend it."
        ) from error


class _OtherFile(ValueError):
    """The file's name is already that of another module."""


def _refuse_another_file(name: str, module: str, path: Path) -> None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != path:
        origin = "something else" if spec is None or spec.origin is None else spec.origin
        raise _OtherFile(f"--agent-module {name} has the name of a module already, {origin}; rename the file.")
