"""Atomic file writes (temporary file, fsync, rename), JSON and CSV files, and system errors in one sentence."""

import csv
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


WRITABLE = "give a directory that you may write"

REMEDIES = {
    errno.ENOSPC: "free some disk space and start again",
    errno.EDQUOT: "free some of your disk quota and start again",
    errno.EMFILE: "raise the limit on open files (ulimit -n) and start again",
    errno.ENFILE: "close other programs, the system's limit on open files is reached",
    errno.EACCES: WRITABLE,
    errno.EPERM: WRITABLE,
    errno.EROFS: WRITABLE,
    errno.EEXIST: "remove the file that is in the way, or give another directory",
    errno.ENOTDIR: "remove the file that is in the way, or give another directory",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and start again",
    errno.EIO: "check the disk",
}
"""What to do about a system error, by its number; for any other number, `OTHER_REMEDY`."""

OTHER_REMEDY = "check its directory"


@contextmanager
def named_errors(path: Path, deed: str = "written", remedy: str | None = None) -> Iterator[None]:
    """Rewords an `OSError` about a file as one sentence: "{path} cannot be {deed}: {reason}; {remedy}.".

    The exception keeps its class and `errno`. An error about another file, or with a sentence already, is unchanged.
    """
    try:
        yield
    except OSError as error:
        ours = error.filename is None or path.name in os.path.basename(str(error.filename))
        if error.strerror is None or not ours:
            raise
        raise _in_a_sentence(error, path, deed, remedy) from error


def refuse_special(path: Path, kind: str) -> None:
    """Refuses what is no regular file, such as a directory, or a pipe, whose opening would block.

    **Arguments:** `kind`, what the file should be, for the message, such as "CSV file".

    Raises a `FileNotFoundError` if there is no file, and a `ValueError` for all else, each one sentence.
    """
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}; give the {kind} of your data.") from None
    except (OSError, ValueError) as error:  # a `ValueError` for a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"{path} cannot be read ({reason}); give a file that you may read.") from error
    if not regular:
        raise ValueError(f"{path} is a directory or a device; give a {kind}.")


def make_directory(directory: Path, remedy: str | None = None, mode: int = 0o777) -> None:
    """Creates a directory and its missing parents; raises an `OSError`, one sentence, if that fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as error:  # it may be about a parent, so `named_errors` would not reword it
        raise _in_a_sentence(error, directory, "made", remedy) from error


def refuse_unwritable(directory: Path) -> None:
    """Raises a `PermissionError`, one sentence, if a directory cannot be written; call it before long work."""
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} cannot be written; {WRITABLE} with --out.")


def refuse_overwriting(out: Path, read: Iterable[Path]) -> None:
    """Raises a `FileExistsError` if `out` is one of the files that are read; call it before the work."""
    for path in read:
        if path.exists() and out.exists() and out.samefile(path):
            raise FileExistsError(f"{out} is a file to read, and would be replaced; give another name for the result.")


def refuse_other_file(out: Path, begins: bytes | None) -> None:
    """Raises a `FileExistsError` if `out` is a directory, or a file that does not begin with `begins` (None: any)."""
    if not out.exists() or (begins is not None and begins_with(out, begins, "give another name for the result")):
        return
    raise FileExistsError(f"{out} exists and is no earlier result of this command; give another name.")


def begins_with(path: Path, begins: bytes, remedy: str | None = None) -> bool:
    """Whether a path is that of a file whose first bytes are `begins`.

    Raises an `OSError`, one sentence that ends in `remedy`, if there is a file that cannot be read.
    """
    if not path.is_file():
        return False
    with named_errors(path, "read", remedy), path.open("rb") as file:
        return file.read(len(begins)) == begins


def _in_a_sentence(error: OSError, path: Path, deed: str, remedy: str | None) -> OSError:
    advice = remedy or REMEDIES.get(error.errno or 0, OTHER_REMEDY)
    found = type(error)(f"{path} cannot be {deed}: {(error.strerror or 'unknown error').lower()}; {advice}.")
    found.errno = error.errno
    return found


@contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Writes a file atomically: opens a temporary file, and renames it to `path` only if nothing is raised.

    **Arguments:** `mode`, `w` for text or `wb` for bytes.

    Raises an `OSError`, one sentence with the file's name, if the system refuses (a full disk, no permission), and a
    `FileExistsError` for a pipe or a device, which the file would replace.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    binary = "b" in mode
    with named_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise FileExistsError(f"{path} is a pipe or a device; give the name of a file.")
        _remove_abandoned(path)
        # "x" fails if the file exists, and so never writes through a symbolic link.
        exclusive = mode.replace("w", "x")
        # newline="" gives the same line ends on every system.
        with temporary.open(exclusive, encoding=None if binary else "utf-8", newline=None if binary else "") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                file.close()
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Writes a directory atomically: yields a temporary one beside it, and renames it only if nothing is raised.

    Raises a `FileExistsError` if `path` exists, and another `OSError`, one sentence, if the system refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _refuse_present(path)
    make_directory(path.parent)
    with named_errors(path):
        _remove_abandoned(path)
        temporary.mkdir()
        try:
            yield temporary
            _refuse_present(path)  # renaming would replace an empty directory
            os.rename(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _refuse_present(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists already; remove it, or give another directory.")


def _remove_abandoned(path: Path) -> None:
    """Removes the temporary files and directories of this path that killed processes left."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.tmp")
    for name in os.listdir(path.parent):
        written_by = pattern.fullmatch(name)
        if written_by and not _is_another(int(written_by[1])):
            left = path.with_name(name)
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _is_another(process: int) -> bool:
    """Whether a process other than this one has that id."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True  # other systems have no harmless signal to test with
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # it belongs to another user
    return True


def write_json(path: Path, content: Any) -> None:
    """Writes `content` to a JSON file, atomically."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Writes rows to a CSV file, atomically; `columns` are in order and default to those of the first row."""
    with whole_file(path) as file:
        writer = csv.DictWriter(file, list(rows[0]) if columns is None else columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path, remedy: str = "restore it from a copy or make it again") -> dict[str, Any]:
    """Reads a file that holds one JSON object without duplicate names.

    **Arguments:** `remedy`, what the error message advises if the file is missing or holds something else.

    Raises a `FileNotFoundError` if there is no file, and a `ValueError` if it cannot be read or holds something else;
    each is one sentence with the file's name.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block
            raise ValueError("it is no file")
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}; {remedy}.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is empty, damaged or no JSON in UTF-8 ({error}); {remedy}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__} instead of an object; {remedy}.")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} occurs twice")
    return content


def read_rows(path: Path, key: str, columns: Sequence[str], remedy: str) -> list[dict[str, Any]]:
    """The rows under a key of a JSON file; an empty list if it lacks the key.

    Raises as `read_json` does, and a `ValueError` if a row lacks one of the columns.
    """
    rows = read_json(path, remedy).get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= set(columns) for row in rows):
        raise ValueError(f"{path} has {key} without {', '.join(columns)}; {remedy}.")
    return rows


def write_sealed(path: Path, form: str, version: int, header: dict[str, Any], payload: bytes) -> None:
    """Writes a header and a payload with a checksum, by which `sorl.policy.exported.read_sealed` detects any change.

    Raises a `ValueError` if the header holds a number that is not finite, which JSON cannot represent.
    """
    content = json.dumps(header, allow_nan=False).encode() + b"\n" + payload
    with whole_file(path, "wb") as file:
        file.write(f"{form} {version} {hashlib.sha256(content).hexdigest()}\n".encode() + content)


def expanded(path: Path, remedy: str) -> Path:
    """Replaces `~` by the home directory; raises a `FileNotFoundError` that ends in `remedy` if none is known."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise FileNotFoundError(f"{path} needs a home directory, and none is known; {remedy}.") from None


def user_cache(name: str) -> Path:
    """The path of one of sorl's directories in the user's cache (`XDG_CACHE_HOME`, or `~/.cache`).

    Raises a `FileNotFoundError` if no home directory is known.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return expanded(cache, "set HOME or XDG_CACHE_HOME") / "sorl" / name


def make_private(directory: Path, remedy: str) -> None:
    """Creates a directory that only its owner can access, or restricts an existing one to its owner.

    An existing directory that no other user can write keeps its permissions.

    Raises a `PermissionError`, one sentence that ends in `remedy`, if another user owns the directory or the link to
    it, and another `OSError`, one sentence, if it cannot be created.
    """
    make_directory(directory, remedy, mode=0o700)
    if not {directory.lstat().st_uid, directory.stat().st_uid} <= {os.getuid()}:
        raise PermissionError(f"{directory} belongs to another user; {remedy}.")
    if directory.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        directory.chmod(0o700)
        print(f"{directory} was writable by other users; now only you can access it.", file=sys.stderr)
