"""Whether the program being traced is for an accelerator, where other forms of some formulas are faster than on CPU."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar


_accelerator = ContextVar("accelerator", default=False)
_alone = ContextVar("alone", default=False)


def on_accelerator() -> bool:
    """Whether formulas are to be traced in the form for accelerators; False outside of `traced_for`."""
    return _accelerator.get()


def bound_by_kernels() -> bool:
    """Whether few kernels matter more than few operations: one seed alone on one accelerator.

    The kernels of small networks take about the same time whatever their size; those of many seeds do not.
    """
    return _accelerator.get() and _alone.get()


@contextlib.contextmanager
def traced_for(platform: str, *, alone: bool = False) -> Iterator[None]:
    """Formulas that are traced in this context get the form for a platform, such as `cpu` or `cuda`.

    **Arguments:** `alone`, whether the program updates one seed on one device.

    A function under `jax.jit` that uses it needs both as static arguments, because JAX traces it only once.
    """
    accelerator, one = _accelerator.set(platform != "cpu"), _alone.set(alone)
    try:
        yield
    finally:
        _accelerator.reset(accelerator)
        _alone.reset(one)
