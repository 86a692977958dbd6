"""Command lines as dataclasses, by `tyro`; what does not fit is refused in one sentence."""

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from sorl.system.entry import EXIT_CODES
from sorl.system.names import nearest_option


def parse(
    config: Any, arguments: Sequence[str] | None = None, /, *, prog: str, choices: Sequence[str] = (), **settings: Any
) -> Any:
    """Parses a command line into a dataclass with `tyro.cli`, which receives `settings`.

    **Arguments:** `choices`, the words of the command line on which the known options depend, such as `agent:fql`.

    Raises a `ValueError`, one sentence that names the nearest option, if the command line is invalid, and `SystemExit`
    after `--help`.
    """
    settings = {"description": f"{inspect.getdoc(config)}\n\n{EXIT_CODES}"} | settings
    found, unknown = read(config, arguments, prog=prog, **settings)
    if unknown:
        raise ValueError(_unknown(unknown, _options(config, prog, choices, settings), " ".join([prog, *choices])))
    return found


def read(config: Any, arguments: Sequence[str] | None, /, *, prog: str, **settings: Any) -> tuple[Any, list[str]]:
    """Like `parse`, but also returns the arguments that `config` does not know."""
    words = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(words) and settings.get("add_help", True):
        from sorl.system.help_text import help_text

        print(help_text(config, words, prog, settings))
        raise SystemExit(0)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(config, args=words, prog=prog, return_unknown_args=True, **settings)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_refusal(said.getvalue(), prog)) from None


def _refusal(box: str, prog: str) -> str:
    """The error message, as one sentence, from the box that tyro prints."""
    words: list[str] = []
    # The title is part of the frame; without Unicode it is a line of its own with a rule below it.
    for line in box.splitlines()[1 if "╭" in box else 2 :]:
        if line.strip("│ ").startswith(("──", "---", "╰")):
            break
        words += line.strip("│ ").split()
    text = " ".join(words)
    if own := re.match(r"Error parsing (?!-)[^:]*: (.*)", text):
        return own[1]  # the dataclass's own check raised it, so it is not about one option
    text = re.sub(r"^Error parsing (-\S+): ", r"\1: ", text)
    text = re.sub(r"invalid literal for int\(\) with base 10: ('.*')", r"\1 is not a whole number", text)
    text = re.sub(r"could not convert string to float: ('.*')", r"\1 is not a number", text)
    text = re.sub(r"no type matching (.*?) could be instantiated from \[(.*?)\]\. Got errors:.*", _not_of_kind, text)
    text = re.sub(r"Could not find valid parse for arguments: (.*)", r"\1 does not fit", text)
    text = re.sub(r"^Missing value for argument '(\S+)'.*", r"\1 has no value; give one", text)
    text = re.sub(r"(\d) values\b", r"\1", text)
    text = re.sub(r"^Missing from [^:]*: (\S+) .*", r"\1 is missing", text)
    text = re.sub(r"\. Expected", "; expected", text).rstrip(".")
    return f"{text}; {prog} --help lists the options."


def _not_of_kind(found: re.Match[str]) -> str:
    """The words that are of none of the kinds that tyro names, such as `{None}|{[INT [INT ...]]}`."""
    kind = found[1].removeprefix("{None}|").replace("{[", "").replace("]}", "")
    for name, words in (("INT", "whole number"), ("FLOAT", "number")):
        kind = {name: words, f"{name} [{name} ...]": f"list of {words}s"}.get(kind, kind)
    return f"{found[2]} is no {kind}"


def _unknown(words: Sequence[str], known: Sequence[str], prog: str) -> str:
    named = [word.partition("=")[0] for word in words if word.startswith("--")] or list(words)
    suggested = [f"{word}{nearest_option(word, known)}" for word in named]
    kind = "option" if named[0].startswith("--") else "argument"
    return f"There is no {kind} {', '.join(suggested)}; {prog} --help lists all."


def _options(config: Any, prog: str, choices: Sequence[str], settings: dict[str, Any]) -> list[str]:
    """The names of all options, read from the help text."""
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        tyro.cli(config, args=[*choices, "--help"], prog=prog, **settings)
    lines = [line for line in text.getvalue().splitlines() if re.match(r"\W*--", line)]
    return sorted({option for line in lines for option in re.findall(r"--[a-z][\w.-]*", line)})
