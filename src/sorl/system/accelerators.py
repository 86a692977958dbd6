"""Whether the program being traced is for an accelerator, where other forms of some formulas are faster than on CPU."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar


_accelerator = ContextVar("accelerator", default=False)


def on_accelerator() -> bool:
    """Whether formulas are to be traced in the form for accelerators; False outside of `traced_for`."""
    return _accelerator.get()


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Formulas that are traced in this context get the form for a platform, such as `cpu` or `cuda`.

    A function under `jax.jit` that uses it needs the platform as a static argument, because JAX traces it only once.
    """
    token = _accelerator.set(platform != "cpu")
    try:
        yield
    finally:
        _accelerator.reset(token)
