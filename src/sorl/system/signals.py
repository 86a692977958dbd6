"""Signals that ask a run to stop, recorded until the run reaches a point where it can save and stop."""

import signal
import threading
from contextlib import contextmanager
from types import FrameType


SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""The signals that end a command, of those that the system has."""


class Interrupted(BaseException):
    """Raised by a signal inside `Interruption.at_once`; a `BaseException`, so that no library swallows it."""


class Interruption:
    """A context that records `SIGNALS` instead of ending the process, so that the run can save first.

    A SIGINT after the first signal raises `KeyboardInterrupt` at once, for a user who does not want to wait. A signal
    that the parent process ignored (as nohup does with SIGHUP) stays ignored. Outside the main thread, where Python
    forbids signal handlers, nothing is recorded.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        """The first signal received, or None."""
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
        """A context whose work a signal aborts by raising `Interrupted`, because the work can be repeated later."""
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
