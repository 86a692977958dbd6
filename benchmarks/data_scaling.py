"""How does success grow with the number of episodes in the data?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("data_scaling", stopped="the same command continues with what is not finished")

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pictures import logarithmic_counts, pyplot_without_screen

from sorl.config.presets import QUICKSTART_ENV
from sorl.report.run import ReportedRun
from sorl.report.runs import read_runs
from sorl.statistics.tables import headline
from sorl.sweep import run as sweep
from sorl.sweep.grid import Grid, PlannedRun, expand, with_joined_options
from sorl.sweep.table import read_states
from sorl.system import command_line
from sorl.system.files import whole_file, write_json
from sorl.system.ranges import refuse_outside


Row = dict[str, Any]
OPTION = "data.episodes"


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains the quickstart's agent on more and more generated episodes, and tabulates and draws its success.

    The runs are a sweep (`sorl.sweep`), whose command is printed. If it is interrupted, the same command continues;
    with more episodes, agents or seeds it adds their runs. It writes data_scaling.json, data_scaling.md and
    data_scaling.png, from the runs that are finished.
    """

    episodes: tuple[int, ...] = (10, 30, 100, 300, 1000)
    """Numbers of generated episodes; the quickstart has 100."""
    agents: tuple[str, ...] = ("sorl",)
    """Agents by their names in `sorl.train`, each optionally followed by its own options."""
    env: str = QUICKSTART_ENV
    """OGBench's name of a single-task data set that can be generated."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds; each is a separate run."""
    options: str = ""
    """More options of `sorl.train` for all runs, such as "--updates 1000"."""
    jobs: int = 1
    """Number of parallel runs, each on its share of the CPU cores."""
    out: Path = Path("runs/data-scaling")
    """Directory for the runs and the tables."""

    def __post_init__(self):
        if not self.episodes or min(self.episodes) < 1:
            raise ValueError(f"episodes are {self.episodes}; give one or more, each at least 1.")
        refuse_outside(self, jobs=(1, 4096))

    @property
    def grid(self) -> Grid:
        """The runs as the grid of a sweep."""
        varied = ((OPTION, *map(str, self.episodes)),)
        return Grid(self.agents, (self.env,), self.seeds, set=varied, preset="quickstart", options=self.options)

    @property
    def words(self) -> list[str]:
        """The words behind `python -m sorl.sweep` of the same sweep."""
        words = ["--out", str(self.out), "--jobs", str(self.jobs), "--extend", "--agents", *self.agents]
        words += ["--envs", self.env, "--seeds", *map(str, self.seeds), "--preset", "quickstart"]
        words += [f"--options={self.options}"] if self.options else []
        return [*words, "--set", OPTION, *map(str, self.episodes)]


def main(config: Config) -> tuple[list[Row], bool]:
    """Trains what is missing and writes the files; **returns** the table's rows, and whether all runs are finished."""
    runs = expand(config.grid)
    print(f"The sweep:\n  {shlex.join(['python', '-m', 'sorl.sweep', *config.words])}", flush=True)
    where = sweep.EngineOptions(jobs=config.jobs)
    described = sweep.Config(out=config.out, grid=config.grid, where=where, extend=True)
    try:
        complete = sweep.carry_out(described, runs, config.words)
    finally:  # also if it is interrupted
        rows = summarised(finished(config.out.expanduser().absolute(), runs))
        if rows:
            write(config, rows)
    return rows, complete


def finished(out: Path, runs: Sequence[PlannedRun]) -> list[tuple[str, ReportedRun]]:
    """The finished runs, each with its agent as it was given."""
    states = read_states(out, [planned.run for planned in runs])
    done = [planned.run for planned in runs if states[planned.run.directory].kind == "finished"]
    read = read_runs([out / run.directory for run in done], [run.method for run in done]) if done else []
    agents = {out / run.directory: run.agent for run in done}
    return [(agents[run.directory], run) for run in read]


def summarised(runs: Sequence[tuple[str, ReportedRun]]) -> list[Row]:
    """A row for each agent and number of episodes: the mean of the last three evaluations over seeds, with interval."""
    groups: dict[tuple[str, int], list[Any]] = {}
    for agent, run in runs:
        assert run.config.data.episodes is not None, "every run of the sweep has a number of episodes"
        groups.setdefault((agent, run.config.data.episodes), []).extend(run.evaluations)
    rows = []
    for (agent, episodes), evaluations in sorted(groups.items()):
        for row in headline(evaluations):
            kept = {name: row[name] for name in ("seeds", "success", "success_low", "success_high", "interval")}
            rows.append({"agent": agent, "episodes": episodes} | kept)
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    lines = ["| agent | episodes | seeds | success, last three evaluations | 95 % interval |", "|---|---|---|---|---|"]
    for row in rows:
        interval = f"{row['success_low']:.2f} .. {row['success_high']:.2f}"
        shown = f"| `{row['agent']}` | {row['episodes']:,} | {row['seeds']} "
        lines.append(f"{shown}| {row['success']:.2f} | {interval} |")
    return "\n".join(lines)


def write(config: Config, rows: Sequence[Row]) -> None:
    """Prints the table, and writes it with the picture."""
    text = markdown(rows)
    print(text)
    write_json(config.out / "data_scaling.json", {"env": config.env, "options": config.options, "rows": list(rows)})
    with whole_file(config.out / "data_scaling.md") as file:
        file.write(f"{text}\n")
    draw(rows, config.out / "data_scaling.png")
    print(f"Wrote {config.out / 'data_scaling.md'} and data_scaling.json")


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws success against episodes, a line for each agent, with intervals."""
    if (pyplot := pyplot_without_screen()) is None:
        return
    figure, axes = pyplot.subplots(figsize=(5, 3.4), layout="constrained")
    for agent in dict.fromkeys(row["agent"] for row in rows):
        own = [row for row in rows if row["agent"] == agent]
        means = [row["success"] for row in own]
        # The ends of an interval without width may lie beyond the mean by a rounding, which errorbar refuses.
        below = [max(0.0, row["success"] - row["success_low"]) for row in own]
        above = [max(0.0, row["success_high"] - row["success"]) for row in own]
        axes.errorbar([row["episodes"] for row in own], means, [below, above], marker="o", capsize=3, label=agent)
    logarithmic_counts(axes, sorted({row["episodes"] for row in rows}))
    axes.set(xlabel="episodes in the data", ylabel="success, 95 % interval", ylim=(-0.02, 1.02))
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def command() -> int:
    """Runs the command line; **returns** 1 if some of the runs failed."""
    words = with_joined_options(sys.argv[1:])
    return 0 if main(command_line.parse(Config, words, prog="python benchmarks/data_scaling.py"))[1] else 1
