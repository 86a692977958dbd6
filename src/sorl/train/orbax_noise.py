"""Silences what Orbax and TensorStore print: every failure of theirs reaches the caller as an exception."""

import logging
import os
import sys
from typing import Any


class _Silence(logging.Filter):
    """Drops records that Orbax logged, or that asyncio logged about tasks in which TensorStore reads or writes."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (f"{os.sep}orbax{os.sep}" in record.pathname or "OCDBT" in record.getMessage())


class _Hook:
    """A hook for unraisable exceptions that drops TensorStore's about futures whose event loop Orbax has closed."""

    def __init__(self):
        self._previous = sys.unraisablehook

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (unraisable.object is None and type(error) is RuntimeError and str(error) == "Event loop is closed"):
            self._previous(unraisable)


def silence() -> None:
    """Silences this process; calling it again changes nothing."""
    if isinstance(sys.unraisablehook, _Hook):
        return
    # Orbax logs through absl's logger, dozens of lines a save, and offers no other way to quieten it alone.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_Silence())
    sys.unraisablehook = _Hook()
