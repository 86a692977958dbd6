"""The size and the SHA-256 of data that lie in several files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sorl.data import records


def digest(files: Sequence[Path], base: Path) -> dict[str, Any]:
    """The `size` in bytes and the `sha256` of some files.

    That of one file is its own. That of several is the SHA-256 of their sorted list, a line "{digest} {name}" for each,
    where names are relative to `base`; it does not depend on where the directory lies.
    """
    if list(files) == [base]:
        return records.fingerprint(base)
    found = {path.relative_to(base).as_posix(): records.fingerprint(path) for path in sorted(files)}
    lines = "".join(f"{one['sha256']} {name}\n" for name, one in sorted(found.items()))
    return {"size": sum(one["size"] for one in found.values()), "sha256": hashlib.sha256(lines.encode()).hexdigest()}
