"""Workers find sorl and its requirements, and execute no file of the current directory."""

import os
import subprocess
import sys

import pytest

from sorl.system.worker_process import worker_command


HIJACKED = ("selectors", "json", "numpy", "ogbench", "sitecustomize", "usercustomize", "sorl")


@pytest.fixture
def trap(tmp_path):
    """A directory with modules that print a line if they are executed."""
    directory = tmp_path / "trap"
    directory.mkdir()
    for name in HIJACKED:
        (directory / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})\n")
    return directory


WORK = "import selectors, json, numpy, sys, sorl.environments.pool; print(*sys.argv[1:])"


def _run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("entry", ["", ".", None])
def test_the_current_directory_is_not_searched(trap, tmp_path, monkeypatch, entry):
    monkeypatch.chdir(trap)
    monkeypatch.setattr(sys, "path", [str(trap) if entry is None else entry, *sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    assert _run(*worker_command(WORK, "two words", "b")) == "two words b\n"
    assert not (tmp_path / "executed").exists()


def test_what_a_worker_starts_is_safe_too(trap, tmp_path, monkeypatch):
    monkeypatch.chdir(trap)
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import json; print(7)'], check=True)"
    assert _run(*worker_command(nested)) == "7\n"
    assert not (tmp_path / "executed").exists()


def test_the_directory_of_the_script_is_not_searched(trap, tmp_path):
    # The script itself runs before its directory is searched for anything that the trap holds.
    script = trap / "script.py"
    script.write_text(
        "import sys; trap = sys.path.pop(0)\n"
        "import selectors, json, subprocess\n"
        "from sorl.system.worker_process import worker_command\n"
        "sys.path.insert(0, trap)\n"
        f"command, environment = worker_command({WORK!r}, 'done')\n"
        "sys.exit(subprocess.run(command, env=environment).returncode)\n"
    )
    assert _run([sys.executable, str(script)], {**os.environ, "PYTHONPATH": ""}) == "done\n"
    assert not (tmp_path / "executed").exists()


def test_packages_that_only_this_process_was_shown_are_found(tmp_path, monkeypatch):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "only_here.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert _run(*worker_command("import only_here; print(only_here.VALUE)")) == "7\n"


def test_sorl_is_found_in_the_current_directory_after_all_else(monkeypatch):
    import sorl

    source = os.path.dirname(os.path.dirname(os.path.abspath(sorl.__file__)))
    monkeypatch.chdir(source)
    _, environment = worker_command("")
    places = environment["PYTHONPATH"].split(os.pathsep)
    assert places.count(source) == 1
    assert places[-1] == source
