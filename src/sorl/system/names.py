"""Which known name did a user mean?"""

import difflib
from collections.abc import Sequence


def nearest(name: str, known: Sequence[str]) -> str:
    """A suggestion of the closest known name, such as " (do you mean 'sorl'?)"; empty if none is close."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (do you mean {found[0]!r}?)" if found else ""


def nearest_option(option: str, known: Sequence[str]) -> str:
    """As `nearest`, by the part of an option behind its group, such as `discount` of `--agent.discount`."""
    group, _, name = option.lstrip("-").rpartition(".")
    names = {one: one.lstrip("-").rpartition(".")[2] for one in known}
    # The same name in another group, then a name that contains the word, then a similar one in the same group.
    likely = [one for one in names if names[one] == name] or [one for one in names if name in names[one].split("-")]
    grouped = {one: part for one, part in names.items() if group and one.startswith(f"--{group}.")} or names
    close = difflib.get_close_matches(name, grouped.values(), n=1)
    likely = likely or [one for one, part in grouped.items() if part in close]
    return f" (do you mean {min(likely, key=len)!r}?)" if likely else ""
