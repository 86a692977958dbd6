"""Silences the log messages of Orbax and TensorStore, whose failures all reach the caller as exceptions."""

import logging
import os
import sys
from typing import Any


class _Silence(logging.Filter):
    """Drops log records of Orbax, and those of asyncio about TensorStore's tasks."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (f"{os.sep}orbax{os.sep}" in record.pathname or "OCDBT" in record.getMessage())


class _Hook:
    """A hook for unraisable exceptions that drops those of TensorStore's futures whose event loop Orbax has closed."""

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
    # Orbax logs dozens of lines per save through absl's logger, and has no option to silence them.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_Silence())
    sys.unraisablehook = _Hook()
