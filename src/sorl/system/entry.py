"""How every command starts and ends: one guard around its imports and its work, one sentence per failure.

Exit codes of every command:

- 0: done.
- 1: finished, but something in it failed (a training seed, an evaluation, a run of a comparison).
- 2: refused or failed; standard error gives the reason in one sentence that begins with `error:`.
- 130: stopped by Ctrl-C.
- 128 + n: stopped by signal n, such as 143 for SIGTERM; 141 or 129 if the pipe or the terminal that reads standard
  output was closed.

This module imports in milliseconds, so that Ctrl-C already works while the command's own imports run.
"""

import contextlib
import errno
import importlib
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from sorl.system.signals import SIGNALS


EXIT_CODES = (
    "Exit codes: 0 done; 1 finished, but something in it failed; 2 refused or failed, as one sentence on standard "
    "error says; 130 stopped by Ctrl-C; 128 + n stopped by signal n."
)

EXTRAS = {
    "matplotlib": "plots",
    "tensorboardX": "tensorboard",
    "wandb": "wandb",
    "imageio": "video",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "minari": "minari",
    "h5py": "hdf5",
    "pyarrow": "lerobot",
    "PIL": "minari",
    "ray": "cluster",
}
"""The extra of sorl that installs each optional module, by the module's name."""

_GONE = {errno.EPIPE: signal.SIGPIPE, errno.EIO: signal.SIGHUP}
"""The error of a write to a pipe or a terminal that was closed, and the signal that says so."""

AGAIN_SECONDS = 0.05
"""The seconds after which a signal is sent again whose exception was swallowed."""

MAX_SENTENCE = 600
"""The most characters of an error that are shown; other libraries' messages can be pages long."""


class Terminated(BaseException):
    """Raised by a signal that ends the process, so that worker processes and files are closed on the way out."""

    def __init__(self, number: int):
        self.number = number


def run(module: str, *, stopped: str = "") -> NoReturn:
    """Imports a module, runs its `command()` as `guarded` does, and exits with its exit code.

    A command's file calls this before its own imports, which take seconds and so must be guarded too.
    """
    _open_closed_streams()
    _on_signals(_end_at_once)
    warnings.showwarning = _show_warning
    sys.unraisablehook = _send_again
    code = guarded(lambda: _command(module), stopped=stopped, leave=_leave)
    _on_signals(signal.SIG_DFL)  # nothing is left to close
    sys.exit(code)


def guarded(
    command: Callable[[], int | None], *, stopped: str = "", leave: Callable[[int], int] = lambda code: code
) -> int:
    """Runs a command and returns its exit code (0 for None); prints one sentence if an exception stopped it.

    **Arguments:** `stopped`, advice to print after Ctrl-C or a signal, such as "the same command continues"; `leave`,
    called with the exit code after a signal has stopped the command in the middle of its work.
    """
    hint = f"; {stopped}." if stopped else "."
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _tell(f"Stopped{hint}")
        return leave(128 + signal.SIGINT)
    except Terminated as ending:
        _tell(f"Stopped by {signal.Signals(ending.number).name}{hint}")
        return leave(128 + ending.number)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _GONE and _reader_is_gone():
            # Python flushes standard output once more as it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + _GONE[error.errno]
        text = sentence(error)
        if text is None:
            _tell(traceback.format_exc().rstrip())
            text = f"{type(error).__name__}, which sorl did not expect; please report it with the lines above."
        _tell(f"error: {text}")
        return 2


def sentence(error: Exception) -> str | None:
    """The message for the user about an exception, on one line; None if only a bug in sorl can raise it."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        text = "Memory ran out; lower --batch-size, the number of seeds or workers, or the sizes of the networks."
    elif isinstance(error, RecursionError):
        text = "The input is nested too deeply; give an input of fewer levels."
    elif os.environ.get("JAX_PLATFORMS") and _is_about_a_platform(error):
        text = (
            f"JAX_PLATFORMS is {os.environ['JAX_PLATFORMS']!r}, which jax cannot use here ({text[:200] or 'no device'}"
            "); install sorl[cuda] or sorl[tpu] for that platform, or unset JAX_PLATFORMS."
        )
    elif "Disallowed" in text and "transfer" in text:
        text = "JAX_TRANSFER_GUARD forbids copies between host and device, which every command makes; unset it."
    elif isinstance(error, RuntimeError) and "home directory" in text:
        text = "The home directory is unknown; set HOME, or both XDG_CACHE_HOME and XDG_DATA_HOME."
    elif isinstance(error, ImportError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        text += f"; pip install 'sorl[{extra}]'." if extra else ""
    elif isinstance(error, OSError) and error.strerror is not None:
        text = _of_the_system(error)
    elif not isinstance(error, ValueError | OSError | FloatingPointError) and not _is_for_the_user(error):
        return None
    return text if len(text) <= MAX_SENTENCE else f"{text[:MAX_SENTENCE]}.."


def _command(module: str) -> int | None:
    command = importlib.import_module(module).command
    _on_signals(_raise)
    return command()


def _open_closed_streams() -> None:
    """Opens the null device for each standard stream that the parent closed; a file of the run would get its number."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", encoding="utf-8"))


def _tell(text: str) -> None:
    """Prints on standard error, which may be a full disk or a terminal that has been closed."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def _show_warning(message: Any, category: Any, *place: Any, **stream: Any) -> None:
    """Prints a warning on one line, without the source line that caused it."""
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _on_signals(handler: Any) -> None:
    """Sets the handler of every signal in `SIGNALS`, except those that the parent process ignored (as nohup does)."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    """Exits at once while the process imports: nothing is open yet, and libraries may swallow an exception there."""
    os.write(2, b"Stopped.\n" if number == signal.SIGINT else f"Stopped by {signal.Signals(number).name}.\n".encode())
    os._exit(128 + number)


def _leave(code: int) -> NoReturn:
    """Exits at once: XLA may still compile in a thread of its own, which Python's own way out would crash."""
    try:
        sys.stdout.flush()
    finally:
        os._exit(code)


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def _send_again(swallowed: Any) -> None:
    """Sends a signal again whose exception Python swallowed, as it does in jax's callback of garbage collections."""
    error = swallowed.exc_value
    if isinstance(error, KeyboardInterrupt | Terminated):
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        timer = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(swallowed)


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe whose reader has closed it, or a terminal that was closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _is_about_a_platform(error: Exception) -> bool:
    """Whether jax found no device: a `RuntimeError` about a backend or, in some versions, a bare assertion in jax."""
    if isinstance(error, RuntimeError):
        return "backend" in str(error)
    frames = traceback.extract_tb(error.__traceback__) if isinstance(error, AssertionError) else []
    return bool(frames) and os.path.basename(frames[-1].filename) == "xla_bridge.py"


def _is_for_the_user(error: Exception) -> bool:
    """Whether an exception is meant for the user: sorl's own exception classes, and plain `RuntimeError`s."""
    return type(error) is RuntimeError or any(kind.__module__.startswith("sorl.") for kind in type(error).__mro__)


def _of_the_system(error: OSError) -> str:
    """The operating system's reason, with the file's name, and what to do about it."""
    from sorl.system.files import OTHER_REMEDY, REMEDIES

    place = f"{error.filename}: " if error.filename is not None else ""
    reason = error.strerror or os.strerror(error.errno or 0)
    return f"{place}{reason}; {REMEDIES.get(error.errno or 0, OTHER_REMEDY)}."
