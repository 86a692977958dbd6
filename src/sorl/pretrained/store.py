"""Where pretrained policies are: in the package, or in the user's cache after a download with a checked digest."""

import hashlib
import os
from pathlib import Path

from sorl.pretrained import addresses
from sorl.pretrained.index import NAME, Entry, Index, parse
from sorl.system.files import make_private, user_cache, whole_file
from sorl.system.names import nearest


PACKAGE = Path(__file__).parent
ADDRESS = "SORL_PRETRAINED"
"""The environment variable with the address of an index, in place of the package's own."""
MOST_INDEX_BYTES = 2**24


def own_index() -> Index:
    """The index of the policies that come with the package."""
    path = PACKAGE / addresses.INDEX
    return parse(path.read_bytes(), str(path))


def read_index(address: str | None = None) -> Index:
    """The index at an address; None: that of the environment variable `SORL_PRETRAINED`, or else the package's own.

    Raises an `OSError` or a `ValueError`, one sentence with the address, if it cannot be read.
    """
    address = address or os.environ.get(ADDRESS)
    if not address:
        return own_index()
    address, content = addresses.index_address(address), b""
    for piece in addresses.pieces(address):
        content += piece
        if len(content) > MOST_INDEX_BYTES:
            raise ValueError(f"{address} is above {MOST_INDEX_BYTES} bytes; give the address of an index.json.")
    return parse(content, address)


def is_name(path: Path) -> bool:
    """Whether a path can only be the name of a pretrained policy: it has no directory, suffix or capital letter."""
    return NAME.fullmatch(str(path)) is not None


def find(name: str) -> Path:
    """The file of a policy that comes with the package or was fetched; nothing is downloaded.

    Raises a `FileNotFoundError`, one sentence with the nearest name, if there is none.
    """
    own = own_index().entries
    if name in own:
        return PACKAGE / own[name].file
    fetched = cache_path(name)
    if fetched.is_file():
        return fetched
    known = [*own, *(path.stem for path in fetched.parent.glob("*.sorl"))]
    raise FileNotFoundError(
        f"There is no file or directory {name}, and no pretrained policy of that name here"
        f"{nearest(name, known)}; give a path, or fetch it with python -m sorl.pretrained {name} --index ADDRESS."
    )


def fetch(name: str, index: Index) -> Path:
    """The file of a pretrained policy, which is downloaded unless it is here already.

    **Returns:** a file whose SHA-256 is that of the index.

    Raises a `ValueError`, one sentence, if the index has no such name, if the download has another size or SHA-256, or
    if the package has another policy of this name, and an `OSError` if the address cannot be read or the cache cannot
    be written; an earlier file of that name is then unchanged.
    """
    entry, own = index[name], own_index().entries.get(name)
    if own is not None and own.sha256 != entry.sha256:
        raise ValueError(f"{index.address} has another {name} than the one that comes with sorl; rename it there.")
    path = cache_path(name) if own is None else PACKAGE / own.file
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256:
        return path
    if own is not None:
        raise ValueError(f"{path} was altered since it was installed; install sorl again.")
    make_private(path.parent, "set XDG_CACHE_HOME to a directory of your own")
    _download(addresses.beside(index.address, entry.file), entry, path)
    return path


def cache_path(name: str) -> Path:
    """The place of a fetched policy in the user's cache."""
    return user_cache("pretrained") / f"{name}.sorl"


def _download(address: str, entry: Entry, path: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with whole_file(path, "wb") as file:
        for piece in addresses.pieces(address):
            size += len(piece)
            if size > entry.bytes:
                break
            digest.update(piece)
            file.write(piece)
        if size != entry.bytes:
            found = f"more than {entry.bytes}" if size > entry.bytes else str(size)
            raise ValueError(
                f"{address} has {found} bytes where its index says {entry.bytes}, so it is truncated or another file; "
                "try again, or tell its publisher."
            )
        if digest.hexdigest() != entry.sha256:
            raise ValueError(
                f"{address} has SHA-256 {digest.hexdigest()[:12]}.. where its index says {entry.sha256[:12]}.., so it "
                "was damaged or changed; try again, or tell its publisher."
            )
