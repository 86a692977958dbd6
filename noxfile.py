"""The project's chores: `nox` runs lint, typecheck and tests; `nox -s bench` measures."""

import os

import nox


nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")


def _group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def tests(session: nox.Session) -> None:
    """Every test, slow ones too, with branch coverage; arguments go to pytest."""
    session.install("-e", ".[plots]", *_group("tests"))
    session.env["COVERAGE_FILE"] = os.path.join(session.create_tmp(), "coverage")
    session.run("coverage", "erase")
    # In alphabetical order, the longest files come early and the last minutes keep both workers busy.
    spread = "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"
    session.run("coverage", "run", "-m", "pytest", *spread, "--durations=25", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--skip-covered", "--sort=cover")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout."""
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Static types of the package, the tests and the benchmarks."""
    session.install("-e", ".[plots]", *_group("tests"), *_group("typecheck"))
    session.run("pyright")


@nox.session
def bench(session: nox.Session) -> None:
    """Time of one update against M^BTT on this machine; arguments go to benchmarks/runtime.py."""
    session.install("-e", ".[plots]")
    session.run("python", "benchmarks/runtime.py", *session.posargs)
