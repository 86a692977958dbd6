"""Reads from an address: a path, file://, http:// or https://, or a repository of the Hugging Face Hub."""

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from sorl.system.files import expanded


INDEX = "index.json"
TIMEOUT = 30.0
"""Seconds without an answer after which a server counts as unreachable."""
PIECE = 2**16
_HUB = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def index_address(address: str) -> str:
    """The address of the index for an address that the user gives.

    **Arguments:** `address`, of the index itself, of a directory with an `index.json`, or
    `hf:OWNER/REPOSITORY[@REVISION]`, which is short for
    `https://huggingface.co/OWNER/REPOSITORY/resolve/main/index.json` (`HF_ENDPOINT` replaces the host).

    Raises a `ValueError`, one sentence, for another kind of address.
    """
    hub = _HUB.fullmatch(address)
    if hub is not None:
        host = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{host.rstrip('/')}/{hub['repository']}/resolve/{hub['revision'] or 'main'}/{INDEX}"
    if "://" not in address and not address.startswith("hf:"):
        path = expanded(Path(address), "give a whole path").absolute()
        return (path / INDEX if path.is_dir() or not path.suffix else path).as_uri()
    try:
        place = urllib.parse.urlsplit(address)
    except ValueError as error:  # brackets that enclose no IPv6 address
        raise ValueError(f"{address} is no address ({error}); check its host.") from None
    if place.scheme not in ("file", "http", "https"):
        raise ValueError(
            f"{address} is no address that sorl can read; give a path, file://, http://, https:// or hf:OWNER/REPO."
        )
    return address if place.path.endswith(".json") else f"{address.rstrip('/')}/{INDEX}"


def beside(address: str, file: str) -> str:
    """The address of a file whose name is relative to the file at `address`."""
    return urllib.parse.urljoin(address, urllib.parse.quote(file))


def pieces(address: str) -> Iterator[bytes]:
    """The content at an address, piece by piece.

    Raises an `OSError`, one sentence with the address, if it cannot be reached or read, or if the content ends early.
    """
    place = urllib.parse.urlsplit(address)
    local = Path(urllib.request.url2pathname(place.path))
    if place.scheme == "file" and local.exists() and not local.is_file():  # opening a pipe would block
        raise ConnectionError(f"{address} cannot be read (it is no file); check the address.")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            while piece := answer.read(PIECE):
                yield piece
            if getattr(answer, "length", None):  # a server that closed the connection before the length it had told
                raise http.client.IncompleteRead(b"", answer.length)
    except http.client.IncompleteRead as error:
        missing = "" if error.expected is None else f" {error.expected} bytes"  # unknown without a Content-Length
        raise ConnectionError(f"The download of {address} ended{missing} early; try it again.") from error
    except urllib.error.HTTPError as error:
        with error:
            raise ConnectionError(
                f"{address} answers {error.code} ({error.reason}); check the address, and that it is public."
            ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", None) or error
        reason = str(getattr(cause, "strerror", None) or cause or type(cause).__name__).removesuffix(".")
        raise ConnectionError(f"{address} cannot be read ({reason}); check the address and the network.") from error
