"""JAX's persistent compilation cache, which commands enable; importing sorl never does."""

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
    """Caches every compiled program in a private directory, so that a second start compiles nothing.

    A damaged entry is removed, compiled again and rewritten.

    **Returns:** the directory: `JAX_COMPILATION_CACHE_DIR` if set, else `sorl/xla` in the user's cache. If the latter
    cannot be written, prints one line on standard error and returns None. Raises an `OSError` if the directory belongs
    to another user, who could replace its programs.
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
    # By default JAX caches only programs that took long to compile, but small ones delay a second start too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    _remove_damaged_entries(directory)
    return directory


def _remove_damaged_entries(directory: Path) -> None:
    """Removes a program's cache entries when JAX warns that it cannot read one of them.

    After the warning JAX compiles the program, but never replaces the damaged entry. The warning is the only public
    sign of damage. It names the program, and the file names of the program's entries begin with that name.
    """
    shown = warnings.showwarning

    def show(message: Warning | str, *place: Any, **options: Any) -> None:
        found = re.match(r"Error reading persistent compilation cache entry for '(\w+)'", str(message))
        if found is None:
            shown(message, *place, **options)
            return
        for path in directory.glob(f"{found[1]}-*"):
            path.unlink(missing_ok=True)
        print(f"A damaged compiled program was removed from {directory}; it is compiled again.", file=sys.stderr)

    warnings.showwarning = show
