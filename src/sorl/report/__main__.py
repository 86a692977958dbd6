"""`python -m sorl.report RUN...`: an HTML page that compares runs, with the commands that reproduce its numbers."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("sorl.report.__main__")

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from sorl.config.own_agents import OwnAgents
from sorl.report.page import Page
from sorl.report.run import ReportedRun
from sorl.report.runs import read_runs
from sorl.report.sections import Report
from sorl.runs.sweeps import begun_runs, is_sweep
from sorl.system import command_line, compilation
from sorl.system.files import make_directory, whole_file


@dataclasses.dataclass(frozen=True)
class Config:
    """Compares runs on one self-contained HTML page, and also writes its pictures as PNG files.

    Runs of the same agent are one method, unless their options, data or evaluations differ on the same task; the seeds
    of a method are pooled. A sweep that is given alone has the methods of its results. Each section says which data are
    missing for it. Pictures need matplotlib (pip install 'sorl[plots]').
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run directories written by `sorl.train`; a directory of `sorl.sweep` stands for all its runs."""
    out: Path = Path("report")
    """Directory for index.html and the pictures; created if missing."""
    runtime: tuple[Path, ...] = ()
    """JSON files written by `benchmarks/runtime.py`, for the section on time."""
    film: bool = False
    """Show frames of one episode of the first run that has an environment, at few and at many inference steps (needs an
    off-screen renderer)."""
    film_steps: tuple[int, ...] = (1, 8)
    """Numbers of inference steps to film, one row of frames for each."""
    film_episode: int = 0
    """Index of the episode to film, as in an evaluation."""
    film_env: str | None = None
    """Environment of the film for a run that was trained on logs alone."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)
    """Agents of your own."""

    def __post_init__(self):
        if not self.runs:
            raise ValueError("No run is given; give the run directories that sorl.train printed.")
        if self.film_env is not None and not self.film:
            raise ValueError(f"The film's environment is {self.film_env}, but nothing is filmed; add --film.")


def main(config: Config) -> Path:
    """Writes the page and its pictures; **returns** the page's path."""
    config.own_agents.load()
    runs = _read(config.runs)
    make_directory(config.out)
    page = Page(_title(runs))
    report = Report(page, runs, config.out)
    for section in (
        report.untrusted,
        report.curves,
        report.final_scores,
        report.populations,
        report.published,
        report.improvement,
        report.budgets,
        report.ablations,
        report.assessments,
    ):
        section()
    report.times(config.runtime)
    if config.film:
        compilation.enable_cache()
        report.film(config.film_steps, config.film_episode, config.film_env)
    report.origins(f"python -m sorl.report {shlex.join(_arguments(config))}")
    path = config.out / "index.html"
    with whole_file(path) as file:
        file.write(page.html())
    print(f"Wrote {path}")
    return path


def _read(directories: Sequence[Path]) -> list[ReportedRun]:
    """The runs in the directories; those of a sweep that is given alone have the methods of its results."""
    sweeps = {path: begun_runs(path) for path in directories if is_sweep(path)}
    for path, runs in sweeps.items():
        if not runs:
            raise ValueError(f"No run of the sweep in {path} has begun; continue it with python -m sorl.sweep.")
    if len(directories) == len(sweeps) == 1:
        (begun,) = sweeps.values()
        return read_runs(list(begun), [run.method for run in begun.values()])
    return read_runs([run for path in directories for run in sweeps.get(path, [path])])


def _title(runs: Sequence[ReportedRun]) -> str:
    tasks, methods = (len({getattr(run, name) for run in runs}) for name in ("task", "method"))
    return f"{methods} method{'s' * (methods > 1)} on {tasks} task{'s' * (tasks > 1)}"


def _arguments(config: Config) -> list[str]:
    words = [*map(str, config.runs), *config.own_agents.words]
    if config.runtime:
        words += ["--runtime", *map(str, config.runtime)]
    if config.film:
        words += ["--film", "--film-steps", *map(str, config.film_steps), "--film-episode", str(config.film_episode)]
        words += [] if config.film_env is None else ["--film-env", config.film_env]
    return [*words, "--out", str(config.out)]


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python -m sorl.report"))
