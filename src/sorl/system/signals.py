"""Signals that ask a run to stop, kept until the run is at a place where it can."""

import signal
import threading
from contextlib import contextmanager
from types import FrameType


SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""The signals that end a command, as far as the system has them."""


class Interrupted(BaseException):
    """Raised inside `Interruption.at_once` by a signal; no library's `except Exception` may swallow it."""


class Interruption:
    """A context in which `SIGNALS` are noted instead of ending the process, so that the run saves first.

    A SIGINT after that raises `KeyboardInterrupt` at once, for whoever does not want to wait. A signal that the process
    was started to ignore (as nohup does with SIGHUP) stays ignored. Outside the main thread, where Python forbids
    signal handlers, nothing is noted.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        """The first signal that came, or None."""
        self._previous = {}
        self._at_once = False

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self):
        """A stretch of work that a signal abandons (by `Interrupted`), because it can be done again from the start."""
        self._at_once = True
        try:
            if self.signal is not None:
                raise Interrupted
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number)
        if self._at_once:
            self._at_once = False
            raise Interrupted
