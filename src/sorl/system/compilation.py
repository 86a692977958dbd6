"""JAX's persistent compilation cache, for the entry points; never switched on by an import."""

import errno
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import jax

from sorl.system.files import make_private, user_cache


REMEDY = "set JAX_COMPILATION_CACHE_DIR to a directory of your own, or turn the cache off with --no-compilation-cache"


def enable_cache() -> Path | None:
    """Keeps every compiled program in a private directory, so that a second start compiles nothing.

    An entry that turns out to be damaged is removed, and compiled and written anew.

    **Returns:** the directory: `JAX_COMPILATION_CACHE_DIR` where it is set, else `sorl/xla` in the user's cache; None,
    after one line on standard error, where the latter cannot be written. Raises an `OSError` if the directory belongs
    to someone else, who could put programs of theirs into it.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    directory = Path(chosen) if chosen else user_cache("xla")
    try:
        make_private(directory, REMEDY)
    except OSError as error:
        if chosen or error.errno not in (errno.EACCES, errno.EROFS):
            raise
        print(f"No compiled program is kept: {directory} cannot be written; {REMEDY}.", file=sys.stderr)
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # The defaults keep only what took long to compile; a small program costs a second start as surely.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    _remove_damaged_entries(directory)
    return directory


def _remove_damaged_entries(directory: Path) -> None:
    """Removes the entries of a program when JAX warns that it cannot read one.

    JAX compiles the program after the warning, but would never replace the damaged entry. The warning is the only
    public sign of damage; it names the program, with which the names of its entries begin.
    """
    shown = warnings.showwarning

    def show(message: Warning | str, *place: Any, **options: Any) -> None:
        found = re.match(r"Error reading persistent compilation cache entry for '(\w+)'", str(message))
        if found is None:
            shown(message, *place, **options)
            return
        for path in directory.glob(f"{found[1]}-*"):
            path.unlink(missing_ok=True)
        print(f"A damaged compiled program was removed from {directory}; it is compiled anew.", file=sys.stderr)

    warnings.showwarning = show
