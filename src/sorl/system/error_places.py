"""The line of the user's own code at which an error arose.

Worker processes import this file, so it must not import jax.
"""

import os
import sysconfig
import traceback
from pathlib import Path


def place(error: BaseException) -> str:
    """The innermost line of the user's code in a traceback, or the line of a syntax error; with its file."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"line {error.lineno} of {os.path.basename(error.filename)}"
    return users_line(error) or _named(_lines(error)[-1])


def users_line(error: BaseException) -> str | None:
    """The innermost line of the user's code in a traceback, with its file; None if there is none."""
    lines = [line for line in _lines(error) if _is_the_users(line[0])]
    return _named(lines[-1]) if lines else None


def _lines(error: BaseException) -> list[tuple[str, int]]:
    """The files and line numbers of a traceback, the innermost last."""
    return [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(error.__traceback__)]


def _named(line: tuple[str, int]) -> str:
    file, number = line
    return f"line {number} of {os.path.basename(file)}"


def _is_the_users(file: str) -> bool:
    """Whether a file is neither of this package nor of Python or an installed one."""
    if file.startswith("<"):
        return False
    libraries = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    others = Path(__file__).parents[1], *map(Path, libraries)
    return not any(Path(file).resolve().is_relative_to(other.resolve()) for other in others)
