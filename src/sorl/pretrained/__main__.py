"""`python -m sorl.pretrained`: lists pretrained policies with their scores, and fetches them."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.pretrained.__main__")

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from sorl.pretrained.index import Entry
from sorl.pretrained.store import fetch, own_index, read_index
from sorl.statistics.measures import RETURN, SUCCESS
from sorl.system import command_line


@dataclasses.dataclass(frozen=True)
class Config:
    """Lists the pretrained policies of an index with their scores, or fetches the named ones into the user's cache.

    `sorl.load_policy(NAME)` then loads one, and so does every command that takes a policy.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = ()
    """Names of policies to fetch; default: list all."""
    index: str | None = None
    """Address of the index: a path, file://, http(s)://, or hf:OWNER/REPOSITORY for one on the Hugging Face Hub.
    Default: the environment variable SORL_PRETRAINED, or else the policies that come with sorl."""


def main(config: Config) -> None:
    """Prints the entries, or fetches the named policies and prints their files."""
    index = read_index(config.index)
    if not config.names:
        print(f"{len(index.entries)} pretrained policies of {index.address}:")
    for found in [index[name] for name in config.names] or index.entries.values():
        print(_description(found))
        if config.names:
            print(f"  file: {fetch(found.name, index)}\n  sorl.load_policy({found.name!r}) loads it.")


def _description(found: Entry) -> str:
    about = found.about
    own = own_index().entries.get(found.name)
    place = ", comes with sorl" if own is not None and own.sha256 == found.sha256 else ""
    trained = ", ".join(str(about[name]) for name in ("algorithm", "env") if name in about)
    lines = [f"{found.name}: {trained or 'of unknown origin'}, {found.bytes / 1e6:.2f} MB{place}"]
    lines += [f"  {about['description']}"] if "description" in about else []
    lines += [f"  command: {about['command']}"] if "command" in about else []
    timing = f", success timing {about['success_timing']}" if "success_timing" in about else ""
    lines += [f"  scores with 95 % intervals{timing}:"] if found.scores else ["  no scores"]
    lines += [f"    {_score(row)}" for row in found.scores]
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """The line without control characters, since an index may be a stranger's and terminals obey them."""
    return "".join(letter if letter.isprintable() else " " for letter in line)


def _score(row: Mapping[str, Any]) -> str:
    measure = SUCCESS if row.get("success") is not None else RETURN
    name = measure.name
    verifier = "" if row.get("verifier") is None else f"-{row['verifier']}"
    noise = "" if row.get("noise_scale", 1.0) == 1.0 else f", noise scale {row['noise_scale']}"
    budget = f"M{row.get('inference_steps', '?')}N{row.get('candidates', '?')}{verifier}{noise}"
    ends = [row.get(key) for key in (name, f"{name}_low", f"{name}_high")]
    if not all(isinstance(end, int | float) for end in ends):
        return f"{budget}: {name} unknown"
    episodes = f", {row['episodes']} episodes" if "episodes" in row else ""
    return f"{budget}: {name} {measure.text(ends[0])} ({measure.range(ends[1], ends[2])}){episodes}"


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.pretrained"))
