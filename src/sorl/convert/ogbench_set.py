"""Converts an OGBench set of npz files to data directories."""

import shlex
from pathlib import Path

from sorl.data.mapped.manifest import read_manifest
from sorl.data.mapped.npz_parts import map_set


def convert(source: Path, out: Path) -> str:
    """Writes the data directory `out`, and `{out}-val` of held-out episodes, with all arrays of the files.

    The memory needed is that of one file. **Returns:** lines for the terminal.

    Raises a `ValueError`, one sentence, if `out` is a file's name or a file of the set is damaged or ends within an
    episode, and a `FileExistsError` if `out` exists.
    """
    if out.suffix:
        raise ValueError(
            f"{out} ends in {out.suffix}, but an OGBench set has no rewards of its own and becomes a data directory; "
            "give a name without an ending."
        )
    lines = []
    for path in map_set(source, out):
        made = read_manifest(path)
        lines.append(f"Wrote {path}: {made.episodes:,} episodes, {made.rows:,} rows")
    lines += [
        f"  from        {source} (OGBench npz)",
        f"Next, where {out.name} is the name of ENV's data set:",
        f"  python -m sorl.train --env ENV --data-dir {shlex.quote(str(out.parent))}",
    ]
    return "\n".join(lines)
