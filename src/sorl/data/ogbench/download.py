"""Downloads files over HTTP: resumes interrupted downloads, and renames a file only after checking it."""

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
"""Base address of OGBench's own files.

When it was down for weeks, OGBench's author recommended a copy (OGBench's issue 49):
https://huggingface.co/datasets/zhouzypaul/ogbench_datasets, whose base address is that plus `/resolve/main`. The copy
is used only if the user lists it as a mirror."""

TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 20
REMEDY = "give a directory that you may write, with --data-dir"


def fetch(name: str, directory: pathlib.Path, hosts: Sequence[str], *, progress: bool = True) -> pathlib.Path:
    """Downloads an npz file from the first host that sends all of it, and writes a record of its size and SHA-256.

    **Arguments:** `name`, the file's name; `directory`, where it goes; `hosts`, base addresses in order of preference;
    `progress`, whether to show a bar.

    **Returns:** the file's path. An incomplete download is kept under a temporary name, and the next call resumes it.

    Raises a `ConnectionError` that gives the reason of each host's failure, and another `OSError`, one sentence, if the
    directory cannot be written.
    """
    path = directory / name
    partial = path.with_name(f".{name}.part")
    failures = []
    with exclusive(directory / ".sorl.lock", remedy=REMEDY):
        _refuse_others_files(partial)
        for host in hosts:
            if path.exists():  # another process has downloaded it meanwhile
                break
            url = f"{host.rstrip('/')}/{name}"
            try:
                _fetch_undamaged(url, partial, progress)
            except (OSError, http.client.HTTPException, ValueError) as error:
                if isinstance(error, OSError) and error.errno in REMEDIES:
                    raise  # it is about the disk, so other hosts would fail too
                failures.append(f"{url}: {_reason(error)}")
            else:
                source = "official" if host == OFFICIAL_HOST else "mirror"
                records.publish(partial, path, {"source": source, "url": url})
        if not path.exists():
            raise ConnectionError("; ".join(failures) or "no host was given")
    return path


def _refuse_others_files(partial: pathlib.Path) -> None:
    """Removes a link or special file in the partial file's place, so that nothing is written to its target."""
    try:
        found = partial.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{partial} is a directory in the place of a partial download; remove it.")
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        partial.unlink()


def _reason(error: Exception) -> str:
    """The reason of a host's failure, on one line."""
    cause = error.reason if isinstance(error, urllib.error.URLError) and error.errno is None else error
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _fetch_undamaged(url: str, partial: pathlib.Path, progress: bool) -> None:
    """Downloads the file; if a resumed download is damaged, downloads it once more from the first byte."""
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
    """Downloads the missing bytes, with new connections for as long as each one delivers some."""
    while True:
        before = _size(partial)
        try:
            return _fetch_rest(url, partial, progress)
        except (OSError, http.client.HTTPException):
            if _size(partial) <= before:
                raise


def _fetch_rest(url: str, partial: pathlib.Path, progress: bool) -> None:
    """Opens one connection and appends the bytes that it delivers."""
    have = _size(partial)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return None  # nothing is missing
            partial.unlink()  # the partial file is longer than the host's, so it is of another file
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
        # Unbuffered, so that `write` itself reports a full disk; network errors come from `read`.
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
