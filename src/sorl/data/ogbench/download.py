"""Fetches files over HTTP: picks up where it was cut off, checks what arrived, and only then gives it its name."""

import http.client
import pathlib
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from tqdm import tqdm

from sorl.data import npz, records
from sorl.system.files import REMEDIES, named_errors
from sorl.system.locks import exclusive


OFFICIAL_HOST = "https://rail.eecs.berkeley.edu/datasets/ogbench"
"""Base address of OGBench's own files. When it was down for weeks, OGBench's author named a copy (OGBench's issue 49):
https://huggingface.co/datasets/zhouzypaul/ogbench_datasets, whose base address would be that plus `/resolve/main`.
It is used only if the user lists it as a mirror."""

TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 20
REMEDY = "give a directory that you may write, with --data-dir"


def fetch(name: str, directory: pathlib.Path, hosts: Sequence[str], *, progress: bool = True) -> pathlib.Path:
    """Downloads an npz file from the first host that sends it whole, with a record of its size and SHA-256 beside it.

    **Arguments:** `name` of the file; `directory` it goes to; `hosts`, base addresses in the order of preference;
    `progress`, whether to show a bar.

    **Returns:** the file's path. What a cut-off left is kept under a temporary name and continued by the next call.

    Raises a `ConnectionError` that says of each host why it failed, and another `OSError`, one sentence, where the
    directory cannot be written.
    """
    path = directory / name
    partial = path.with_name(f".{name}.part")
    failures = []
    with exclusive(directory / ".sorl.lock", remedy=REMEDY):
        _refuse_others_files(partial)
        for host in hosts:
            if path.exists():  # another process was faster
                break
            url = f"{host.rstrip('/')}/{name}"
            try:
                _fetch_undamaged(url, partial, progress)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if isinstance(error, OSError) and error.errno in REMEDIES:
                    raise  # of the disk, whichever host is asked
                failures.append(f"{url}: {_reason(error)}")
            else:
                source = "official" if host == OFFICIAL_HOST else "mirror"
                records.publish(partial, path, {"source": source, "url": url})
        if not path.exists():
            raise ConnectionError("; ".join(failures) or "no host was given")
    return path


def _refuse_others_files(partial: pathlib.Path) -> None:
    """Removes a link in the place of the partial file, so that nothing is written into the link's target."""
    try:
        found = partial.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{partial} is a directory in the place of a partial download; remove it.")
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        partial.unlink()


def _reason(error: Exception) -> str:
    """Why a host failed, in one line."""
    cause = error.reason if isinstance(error, urllib.error.URLError) and error.errno is None else error
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _fetch_undamaged(url: str, partial: pathlib.Path, progress: bool) -> None:
    """Fetches the file; once more from its first byte, if it turns out damaged after having been continued."""
    continued = partial.exists()
    _fetch_all(url, partial, progress)
    damage = npz.damage(partial)
    if damage is None:
        return
    partial.unlink()
    if not continued:
        raise ValueError(f"the file it sent is damaged ({damage})")
    _fetch_undamaged(url, partial, progress)


def _fetch_all(url: str, partial: pathlib.Path, progress: bool) -> None:
    """Fetches the missing bytes, again and again for as long as each connection brings some."""
    while True:
        before = _size(partial)
        try:
            return _fetch_rest(url, partial, progress)
        except (OSError, http.client.HTTPException):
            if _size(partial) <= before:
                raise


def _fetch_rest(url: str, partial: pathlib.Path, progress: bool) -> None:
    """Opens one connection and appends the bytes that it brings."""
    have = _size(partial)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return None  # nothing is missing
            partial.unlink()  # what we have is longer than the file, so it belongs to another
            return _fetch_rest(url, partial, progress)
        raise
    with response:
        continues = response.status == http.client.PARTIAL_CONTENT
        length = response.headers.get("Content-Length")
        start = have if continues else 0
        total = None if length is None else start + int(length)
        _append(response.read, partial, start, total, progress)
    if total is not None and _size(partial) < total:
        raise ConnectionError(f"cut off after {_size(partial)} of {total} bytes")


def _append(read: Callable[[int], bytes], partial: pathlib.Path, start: int, total: int | None, progress: bool) -> None:
    name = partial.name.removeprefix(".").removesuffix(".part")
    bar = tqdm(total=total, initial=start, desc=f"downloading {name}", unit="B", unit_scale=True, disable=not progress)
    with named_errors(partial):
        # Without a buffer, a full disk is noticed by `write`, where it is told apart from the network's errors.
        file = partial.open("ab" if start else "wb", buffering=0)
    with bar, file:
        while chunk := read(CHUNK_BYTES):
            rest = memoryview(chunk)
            with named_errors(partial):
                while rest:
                    rest = rest[file.write(rest) :]
            bar.update(len(chunk))


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0
