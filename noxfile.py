"""The project's chores: `nox` runs lint, types and tests; `nox -s docs` builds pages, `nox -s bench` measures."""

import os
import sys

import nox


nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")


def _group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, name)


def _install(session: nox.Session, *groups: str) -> None:
    """The package with its simulators, of which one dependency cannot be installed on Python 3.13 and is not needed.

    What is imported is compiled then: compiling every file of every package takes longer than to install them. The
    compiled files are kept, whatever the machine's settings say: tests start hundreds of processes.
    """
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    packages = (package for group in groups for package in _group(group))
    session.install("--no-compile", "-e", ".[plots,ogbench]", *packages)
    if sys.version_info >= (3, 13):
        session.install("--no-compile", "--no-deps", "ogbench", "dm_control")


# In alphabetical order, the longest files come early and the last minutes keep both workers busy.
PYTEST = ("pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "--durations=25")


@nox.session
def tests(session: nox.Session) -> None:
    """Every test, slow ones too; arguments go to pytest."""
    _install(session, "tests")
    session.run("python", "-m", *PYTEST, *session.posargs)


@nox.session(venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The tests with the lowest versions that pyproject.toml allows, whose own deprecations are no errors."""
    session.install("--resolution", "lowest-direct", "-e", ".[plots,ogbench]", *_group("tests"))
    session.run(
        "python", "-m", *PYTEST, "-o", "filterwarnings=default", "--ignore", "tests/test_types.py", *session.posargs
    )


@nox.session
def coverage(session: nox.Session) -> None:
    """The tests with branch coverage, which takes a fifth longer; fails below 95 %."""
    _install(session, "tests")
    session.env["COVERAGE_FILE"] = os.path.join(session.create_tmp(), "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", *PYTEST, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--skip-covered", "--sort=cover", "--fail-under=95")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout."""
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Static types alone, which a test checks too."""
    _install(session, "tests")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """The pages in `site/`; a warning fails. The package is read, not installed, and nothing is fetched."""
    session.install(*_group("docs"))
    session.env["NO_MKDOCS_2_WARNING"] = "1"
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Time of one update against M^BTT on this machine; arguments go to benchmarks/runtime.py."""
    _install(session)
    session.run("python", "benchmarks/runtime.py", *session.posargs)
