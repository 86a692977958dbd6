"""Commands end with a documented exit code and one sentence, without a traceback for errors that a user can cause."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from sorl.environments.pool import EnvironmentWorkerError
from sorl.system import entry


def _raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    "error, said",
    [
        (ValueError("steps is 0;\n  give 1."), "steps is 0; give 1."),
        (OSError(errno.ENOSPC, "No space left on device", "a b"), "a b: No space left on device; free some"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "Too many open files; raise the limit on open files",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied; give a directory"),
        (FileNotFoundError("x holds no run; give one."), "x holds no run; give one."),
        (MemoryError(), "Memory ran out; lower --batch-size"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes"), "Memory ran out; lower --batch-size"),
        (RuntimeError("INVALID_ARGUMENT: Disallowed host-to-device transfer: aval=.."), "; unset it."),
        (RecursionError("maximum recursion depth exceeded"), "The input is nested too deeply; "),
        (RuntimeError("Could not determine home directory."), "The home directory is unknown; set HOME"),
        (ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"), "pip install 'sorl[plots]'."),
        (EnvironmentWorkerError("A worker died; give fewer."), "A worker died; give fewer."),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe; check"),  # of a worker: standard output is read on
    ],
)
def test_what_a_user_can_cause_is_one_sentence(error, said, capfd):
    assert entry.guarded(_raising(error)) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]


def test_a_platform_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    text = entry.sentence(RuntimeError("Unable to initialize backend 'cuda': no device.\n(set JAX_PLATFORMS='')"))
    assert text is not None and text.startswith("JAX_PLATFORMS is 'cuda', which jax cannot use here")
    assert text.endswith("unset JAX_PLATFORMS.") and "\n" not in text


def test_a_bare_assertion_of_jax_about_a_platform_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    (tmp_path / "xla_bridge.py").write_text("def backends():\n    assert False\n")
    monkeypatch.syspath_prepend(tmp_path)
    import xla_bridge  # pyright: ignore[reportMissingImports]

    with pytest.raises(AssertionError) as found:
        xla_bridge.backends()
    text = entry.sentence(found.value)
    assert text is not None and text.startswith("JAX_PLATFORMS is 'cuda', which jax cannot use here (no device)")
    assert entry.sentence(AssertionError()) is None


def test_the_message_of_another_library_is_cut():
    text = entry.sentence(ValueError("long " * 1000))
    assert text is not None and len(text) == entry.MAX_SENTENCE + 2


def test_a_mistake_of_ours_shows_its_traceback(capsys):
    assert entry.guarded(_raising(TypeError("unexpected"))) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and said.splitlines()[-1].startswith("error: TypeError, which sorl did not expect")


def test_exit_codes(capsys):
    assert entry.guarded(lambda: None) == 0
    assert entry.guarded(lambda: 1) == 1
    assert entry.guarded(_raising(KeyboardInterrupt()), stopped="the same command continues") == 130
    assert capsys.readouterr().err == "Stopped; the same command continues.\n"
    assert entry.guarded(_raising(entry.Terminated(signal.SIGTERM))) == 143
    assert capsys.readouterr().err == "Stopped by SIGTERM.\n"


MODULE = """
import os, pathlib, sys, time
if "slow" in sys.argv:
    try:
        pathlib.Path("importing").touch()
        time.sleep(60)
    except BaseException:  # as a library may
        pass
def command():
    try:
        pathlib.Path("working").touch()
        while "print" in sys.argv:
            print("a line " * 100)
        time.sleep(60)
    finally:
        pathlib.Path("closed").touch()
"""


def _start(directory, *arguments, module=MODULE, before="", stdout=None, stderr=subprocess.PIPE):
    (directory / "a_command.py").write_text(module)
    code = before + "import sys; sys.path.insert(0, '.'); from sorl.system import entry; entry.run('a_command')"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=directory, stdout=stdout, stderr=stderr, text=True)


def _wait_for(path):
    limit = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize("number, said", [(signal.SIGINT, "Stopped.\n"), (signal.SIGTERM, "Stopped by SIGTERM.\n")])
@pytest.mark.parametrize("arguments, reached", [(["slow"], "importing"), ([], "working")])
def test_a_signal_is_answered_in_one_line_while_importing_and_while_working(tmp_path, number, said, arguments, reached):
    process = _start(tmp_path, *arguments)
    _wait_for(tmp_path / reached)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == said
    assert process.returncode == 128 + number
    assert (tmp_path / "closed").exists() == (reached == "working")


COMPILES = """
import pathlib, jax, jax.numpy as jnp
def command():
    def program(x):
        for _ in range(1000):
            x = jnp.sin(x @ x) + x
        return x
    lowered = jax.jit(program).lower(jnp.ones((8, 8)))
    pathlib.Path("working").touch()
    lowered.compile()
"""


def test_a_signal_during_a_compilation_is_answered_in_one_line(tmp_path):
    process = _start(tmp_path, module=COMPILES)
    _wait_for(tmp_path / "working")
    time.sleep(0.2)  # the compilation begins in a thread of XLA, and takes seconds
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "Stopped.\n"
    assert process.returncode == 130


SWALLOWS = """
import pathlib, time
class Callback:
    def __del__(self):
        pathlib.Path("working").touch()
        time.sleep(20)
def command():
    Callback()
    time.sleep(20)
"""


@pytest.mark.parametrize("number, said", [(signal.SIGINT, "Stopped.\n"), (signal.SIGTERM, "Stopped by SIGTERM.\n")])
def test_a_signal_whose_exception_python_swallows_is_answered_all_the_same(tmp_path, number, said):
    process = _start(tmp_path, module=SWALLOWS)
    _wait_for(tmp_path / "working")
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == said
    assert process.returncode == 128 + number


def test_a_signal_that_nohup_ignores_stays_ignored(tmp_path):
    process = _start(tmp_path, before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); ")
    _wait_for(tmp_path / "working")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == "Stopped by SIGTERM.\n"


def test_a_reader_that_leaves_ends_the_command_silently(tmp_path):
    reader, writer = os.pipe()
    process = _start(tmp_path, "print", stdout=writer)
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 141


STREAMS = """
import os, pathlib, sys
def command():
    file = pathlib.Path("numbers").open("w")
    print("a line")
    print("another line", file=sys.stderr, flush=True)
    child = os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "echo a line")
    file.write(str([file.fileno() > 2, sys.stdin.read(), sys.stderr.isatty(), child]))
"""


def test_streams_that_are_closed_are_no_error_and_no_file_of_the_command_takes_their_numbers(tmp_path):
    (tmp_path / "a_command.py").write_text(STREAMS)
    code = "import sys; sys.path.insert(0, '.'); from sorl.system import entry; entry.run('a_command')"
    closed = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, "-c", code]
    assert subprocess.run(closed, cwd=tmp_path).returncode == 0
    assert (tmp_path / "numbers").read_text() == "[True, '', False, 0]"


TERMINAL = """
import sys, time
def command():
    try:
        print("a line", flush=True)
        while "print" in sys.argv:
            print("a line", flush=True)
        time.sleep(60)
    except OSError as error:
        raise ValueError("steps is 0; give 1.") if "fail" in sys.argv else error
"""


@pytest.mark.parametrize("arguments, code", [(["print"], 129), (["print", "fail"], 2), ([], 143)])
def test_a_terminal_that_is_closed_leaves_the_exit_code(tmp_path, arguments, code):
    ours, theirs = os.openpty()
    process = _start(tmp_path, *arguments, module=TERMINAL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.read(ours, 10)
    os.close(ours)
    process.send_signal(signal.SIGCONT if arguments else signal.SIGTERM)
    assert process.wait(timeout=60) == code


def test_a_warning_is_one_line(tmp_path):
    (tmp_path / "warns.py").write_text(
        "import warnings\ndef command():\n    warnings.warn('Some keys\\nare not used.')\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from sorl.system import entry; entry.run('warns')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "warning: Some keys are not used.\n")
