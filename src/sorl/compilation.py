"""JAX's persistent compilation cache, for the entry points; never switched on by an import."""

import os
from pathlib import Path

import jax

from sorl.files import make_private, user_cache


def enable_cache() -> Path:
    """Keeps every compiled program in a private directory, so that a second start compiles nothing.

    **Returns:** the directory: `JAX_COMPILATION_CACHE_DIR` where it is set, else `sorl/xla` in the user's cache.
    Raises an `OSError` if it belongs to someone else, who could put programs of theirs into it.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    directory = Path(chosen) if chosen else user_cache("xla")
    make_private(
        directory,
        "set JAX_COMPILATION_CACHE_DIR to a directory of your own, or turn the cache off with --no-compilation-cache",
    )
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # The defaults keep only what took long to compile; a small program costs a second start as surely.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return directory
