"""The index of pretrained policies: a JSON file with sizes, digests, scores and origins."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from sorl.system.names import nearest


FORMAT = "sorl-pretrained"
FORMAT_VERSION = 1
MOST_BYTES = 2**30
"""The largest policy that an index may name."""
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""Names of pretrained policies; no file of sorl has such a name, since each has a suffix."""
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One pretrained policy."""

    name: str
    file: str
    """Its file, relative to the index."""
    bytes: int
    sha256: str
    scores: tuple[Mapping[str, Any], ...]
    """The measured success (or return) of each budget, with its interval and number of episodes."""
    about: Mapping[str, Any]
    """Everything else that the index says: description, environment, command, versions."""


@dataclasses.dataclass(frozen=True)
class Index:
    """The pretrained policies of one address."""

    address: str
    entries: Mapping[str, Entry]

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name; raises a `ValueError`, one sentence with the nearest name, if there is none."""
        if name not in self.entries:
            known = ", ".join(self.entries) or "none"
            raise ValueError(
                f"{self.address} has no policy {name!r}{nearest(name, list(self.entries))}; it has {known}."
            )
        return self.entries[name]


def parse(content: bytes, address: str) -> Index:
    """Reads the content of an index; raises a `ValueError`, one sentence with `address`, if it is none."""
    try:
        found = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{address} is no JSON in UTF-8 ({error}); give the address of an index.json.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("policies"), dict):
        raise ValueError(f"{address} is no index of pretrained policies; give the address of an index.json.")
    if found.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{address} has format version {found.get('format_version')!r} where this sorl reads {FORMAT_VERSION}; "
            "install the sorl that wrote it, or give another index."
        )
    return Index(address, {name: _entry(name, fields, address) for name, fields in found["policies"].items()})


def _entry(name: str, fields: Any, address: str) -> Entry:
    is_entry = (
        NAME.fullmatch(name)
        and isinstance(fields, dict)
        and isinstance(fields.get("file"), str)
        and _FILE.fullmatch(fields["file"])  # nothing above or outside of the index's directory
        and type(fields.get("bytes")) is int
        and 0 < fields["bytes"] <= MOST_BYTES
        and isinstance(fields.get("sha256"), str)
        and re.fullmatch("[0-9a-f]{64}", fields["sha256"])
        and isinstance(fields.get("scores"), list)
        and all(isinstance(row, dict) for row in fields["scores"])
    )
    if not is_entry:
        raise ValueError(
            f"{address} has an entry {name[:100]!r} without a relative file, bytes, sha256 and scores, or with a name "
            "that is not of lower-case letters, digits and single hyphens; correct the index."
        )
    about = {key: value for key, value in fields.items() if key not in ("file", "bytes", "sha256", "scores")}
    return Entry(name, fields["file"], fields["bytes"], fields["sha256"], tuple(fields["scores"]), about)
