"""How well do all agents do on the same data, with equal networks and numbers of updates, and at what cost?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("compare", stopped="the same command continues with what is not finished")

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import numpy as np
from ceilings import interleaved
from updates import Chunks, made_up_dataset

from sorl import Normalisation, Policy
from sorl.config.options import TrainConfig
from sorl.config.presets import QUICKSTART_ENV
from sorl.environments.named import is_ogbench
from sorl.environments.ogbench import OgbenchEnvironment
from sorl.policy import bad_seeds
from sorl.report.methods import departures_of_table
from sorl.runs.metrics import read_metrics
from sorl.runs.sweeps import SweepRun
from sorl.runs.versions import versions
from sorl.scaling.grid import time_decisions
from sorl.statistics.intervals import success_interval
from sorl.statistics.rows import evaluation_rows
from sorl.statistics.tables import headline
from sorl.sweep.drive import drive
from sorl.sweep.engines.local import LocalEngine
from sorl.sweep.grid import Grid, expand, with_joined_options
from sorl.sweep.ledger import ATTEMPT
from sorl.sweep.plan import write_plan
from sorl.sweep.table import read_states
from sorl.system import command_line
from sorl.system.cores import available_cores
from sorl.system.files import read_json, read_rows, whole_file, write_csv, write_json
from sorl.system.locks import exclusive
from sorl.train.cli import agent_words


Row = dict[str, Any]

COLUMNS = ("agent", "task", "seed", "kind", "steps", "candidates", "successes", "episodes", "peak_bytes")
"""The columns of an earlier comparison's rows that the table needs."""


class FailedRuns(RuntimeError):
    """Some runs failed; the others have finished."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains every agent with every seed on every task with `sorl.train`, and tabulates success, time and memory.

    They are a sweep (`sorl.sweep`): each (agent, task, seed) has its own run directory below `out`. If the command is
    interrupted, run it again: it keeps the finished runs and continues the others. With more agents, tasks or seeds it
    adds their runs. Runs in `earlier` tables, perhaps of other machines, are copied from there and not repeated. After
    all runs, it times the updates and decisions of all agents in turns, in one process, with fresh networks. Then it
    prints the table and writes comparison.csv (a row for each seed and budget), comparison.json and comparison.md.
    """

    agents: tuple[str, ...] = tuple(word.removeprefix("agent:") for word in agent_words())
    """Agents by their names in `sorl.train`, each optionally followed by its own options, such as
    "sorl --agent.no-critic-sees-steps"."""
    tasks: tuple[str, ...] = (QUICKSTART_ENV,)
    """OGBench's names of single-task data sets."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Training seeds; each is a separate run."""
    preset: Literal["quickstart", "paper"] = "quickstart"
    """The settings of all agents: the quickstart's data, networks and number of updates, or the published ones."""
    options: str = ""
    """More options of `sorl.train` for all runs, such as "--updates 1000"."""
    earlier: tuple[Path, ...] = ()
    """comparison.json files of earlier comparisons with the same preset and options; their run directories are not
    needed."""
    jobs: int = 1
    """Number of parallel runs, each on its share of the CPU cores."""
    rounds: int = 5
    """Rounds in which updates and decisions of all agents are timed in turns; the table shows medians."""
    out: Path = Path("runs/compare")
    """Directory for the runs and the tables."""

    def __post_init__(self):
        if self.jobs < 1 or self.rounds < 1:
            raise ValueError(f"jobs is {self.jobs} and rounds {self.rounds}; give at least 1 of each.")


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of the comparison."""

    run: SweepRun
    """The run as one of a sweep, with a single seed."""
    config: TrainConfig
    """Its options."""
    directory: Path

    @property
    def name(self) -> str:
        """The agent and its options, as given."""
        return self.run.agent

    @property
    def task(self) -> str:
        """OGBench's name of the task."""
        assert self.run.env is not None
        return self.run.env

    @property
    def seed(self) -> int:
        """The training seed."""
        return self.run.seeds[0]

    @property
    def subject(self) -> str:
        """The agent and task, which the runs of all seeds share."""
        return f"{self.name} on {self.task}"

    @property
    def key(self) -> tuple[str, str, int]:
        """The unique key of the run in a comparison."""
        return self.name, self.task, self.seed


def main(config: Config) -> list[Row]:
    """Finishes the runs, prints the table and writes the files; **returns** a row for each agent and task."""
    members = make_members(config)
    earlier = read_earlier(config)
    train_missing(config, [member for member in members if member.key not in earlier])
    found = {member.key: earlier.get(member.key) or outcomes(member) for member in members}
    for member in members:
        if not found[member.key]:
            print(f"{member.subject}, seed {member.seed}, is left out: its losses became non-finite.")
    members = [member for member in members if found[member.key]]
    if not members:
        raise FailedRuns("The losses of all runs became non-finite; give lower learning rates.")
    rows = [row for member in members for row in found[member.key]]
    costs = measure_costs(config, members)
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.subject, []).append(member)
    table = [summary(group, rows, costs) for group in groups.values()]
    text = markdown(table)
    print(text)
    made = {"preset": config.preset, "options": config.options}
    write_json(config.out / "comparison.json", made | {"machine": machine(members), "table": table, "rows": rows})
    write_csv(config.out / "comparison.csv", rows)
    with whole_file(config.out / "comparison.md") as file:
        file.write(f"{text}\n")
    print(f"Wrote {config.out / 'comparison.md'}, comparison.csv and comparison.json")
    return table


def grid_of(config: Config) -> Grid:
    """The comparison as the grid of a sweep."""
    return Grid(config.agents, config.tasks, config.seeds, preset=config.preset, options=config.options)


def make_members(config: Config) -> list[Member]:
    """The runs, ordered by seed first, so that a comparison that is stopped early has every agent equally often.

    Raises a `ValueError` if there are no evaluations or the table after training would lack their budget, and for a
    population or an environment that is not OGBench's.
    """
    out = config.out.absolute()
    members = [Member(planned.run, planned.config, out / planned.run.directory) for planned in expand(grid_of(config))]
    for member in members:
        if member.run.env is not None and not is_ogbench(member.run.env):
            raise ValueError(
                f"{member.run.env} is no task of OGBench, and only their success is compared; leave it out."
            )
        if member.config.population:
            raise ValueError(
                f"{member.name} trains a population, whose members the table would take for seeds; give each value as "
                "an agent of its own, such as 'sorl --agent.q-coefficient 10'."
            )
        if not member.config.evaluation.interval:
            raise ValueError(f"{member.name} is not evaluated during training; give another --evaluation.interval.")
        budget = member.config.budgets(final=False)[0]
        if budget not in member.config.budgets(final=True):
            raise ValueError(
                f"{member.name} is evaluated at {budget.name} during training and not after it; add that budget to "
                "--evaluation.final-inference-steps and --evaluation.final-candidates, or give another to "
                "--evaluation.inference-steps."
            )
    return members


def read_earlier(config: Config) -> dict[tuple[str, str, int], list[Row]]:
    """The rows of earlier comparisons, by `Member.key`; if several have the same run, the last one's.

    Raises a `ValueError` for a comparison with a different preset or different options, and for a damaged file.
    """
    found: dict[tuple[str, str, int], list[Row]] = {}
    for path in config.earlier:
        table = read_json(path)
        for name in ("preset", "options"):
            if table.get(name) != getattr(config, name):
                raise ValueError(
                    f"{path} was made with {name} {table.get(name)!r}, not {getattr(config, name)!r}; give the same, "
                    "or leave it out."
                )
        rows: dict[tuple[str, str, int], list[Row]] = {}
        for row in read_rows(path, "rows", COLUMNS, "restore it from a copy, or leave it out"):
            rows.setdefault((row["agent"], row["task"], row["seed"]), []).append(row)
        found |= rows
    return found


def train_missing(config: Config, members: Sequence[Member]) -> None:
    """Trains the runs that are not finished; raises a `FailedRuns` at the end if any of them failed."""
    runs, out = [member.run for member in members], config.out.absolute()
    with exclusive(out / ".sweep.lock", f"Another command works on the runs in {out}; wait for it."):
        write_plan(out, grid_of(config), expand(grid_of(config)), extend=True)
        drive(out, runs, LocalEngine(config.jobs), retries=0, workers=None)
    states = read_states(out, runs)
    failed = [str(member.directory) for member in members if states[member.run.directory].kind != "finished"]
    if failed:
        raise FailedRuns(f"{len(failed)} runs failed; read log.txt in {', '.join(failed)}, and run it again.")


def outcomes(member: Member) -> list[Row]:
    """The results of a finished run: its last three evaluations together, and each budget after training.

    Empty if its losses became non-finite.
    """
    if bad_seeds(member.directory):
        return []
    evaluation = member.config.evaluation
    while_training = evaluation_rows(read_metrics(member.directory), evaluation.episodes)
    last = [
        _outcome(member, "last three evaluations", row, evaluation.episodes * len(row["steps"]))
        for row in headline(while_training)
    ]
    path = member.directory / "evaluation.json"
    table = read_json(path)
    if departures := departures_of_table(member.config, table["rows"]):
        raise ValueError(
            f"{path} was made by sorl.evaluate with {' and '.join(departures)}; remove it, and give the same command "
            "again, which makes the run's own."
        )
    episodes = table["rows"][0]["episodes"]
    rows = last + [_outcome(member, "after training", row, episodes) for row in table["summary"]]
    versions = read_json(member.directory / "versions.json")
    # An attempt that was killed in the end, or found a full disk, has recorded nothing.
    attempt = member.directory / ATTEMPT
    peak = read_json(attempt)["peak_bytes"] if attempt.exists() else None
    return [row | {"commit": versions["git_commit"], "peak_bytes": peak} for row in rows]


def _outcome(member: Member, kind: str, row: Row, episodes: int) -> Row:
    return {
        "agent": member.name,
        "task": member.task,
        "seed": member.seed,
        "kind": kind,
        "steps": row["inference_steps"],
        "candidates": row["candidates"],
        "successes": round(row["success"] * episodes),
        "episodes": episodes,
    }


def measure_costs(config: Config, members: Sequence[Member]) -> dict[str, Row]:
    """Milliseconds per update and per decision for one observation, and bytes of training state, of all agents.

    The agents are timed in turns, with fresh networks, because training does not affect these figures.

    **Returns:** a row for each agent and task, by `Member.subject`.
    """
    chunks, policies, budgets = {}, {}, {}
    sizes = {task: OgbenchEnvironment(task, "pre").sizes() for task in {member.task for member in members}}
    for name, member in {member.subject: member for member in members}.items():
        settings, (observation_size, action_size) = member.config, sizes[member.task]
        dataset = made_up_dataset(10_000, observation_size, action_size)
        chunks[name] = Chunks(settings.agent, dataset, batch_size=settings.batch_size, updates=50)
        fresh = settings.agent.init(observation_size, settings.agent.window.chunk * action_size, key=jax.random.key(0))
        normalisation = Normalisation.identity(observation_size, action_size)
        policies[name] = Policy(settings.agent.actor, settings.agent.policy(fresh), normalisation)
        budgets[name] = settings.budgets(final=False)[0]
    seconds = interleaved(chunks, rounds=config.rounds)
    decisions: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(config.rounds):
        for name, policy in policies.items():
            decisions[name].append(time_decisions(policy, budgets[name], 1, 0.2)["median_ms"])
    return {
        name: {
            "update_ms": 1000 * median(seconds[name]) / chunk.updates,
            "decision_ms": median(decisions[name]),
            "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(chunk.state.agent)),
        }
        for name, chunk in chunks.items()
    }


def summary(members: Sequence[Member], rows: Sequence[Row], costs: dict[str, Row]) -> Row:
    """The row of one agent on one task: means over the seeds of `members`, with their intervals."""
    first = members[0]
    budget = first.config.budgets(final=False)[0]
    own = {"agent": first.name, "task": first.task, "steps": budget.inference_steps, "candidates": budget.candidates}
    row: Row = own | {"seeds": len(members)}
    for column, kind in (("headline", "last three evaluations"), ("final", "after training")):
        wanted = own | {"kind": kind}
        found = [each for each in rows if all(each[name] == value for name, value in wanted.items())]
        successes, episodes = (np.array([each[name] for each in found]) for name in ("successes", "episodes"))
        # Several evaluations of a seed play the same episodes, so they count as one with their mean.
        once = np.minimum(episodes, first.config.evaluation.episodes) if column == "headline" else episodes
        interval = success_interval(successes * once / episodes, once)
        row |= {column: interval.mean, f"{column}_low": interval.low, f"{column}_high": interval.high}
    peak = max([each["peak_bytes"] for each in found if each["peak_bytes"] is not None], default=None)
    return row | costs[first.subject] | {"peak_bytes": peak}


def markdown(table: Sequence[Row]) -> str:
    """The table in Markdown, with the best agent of each task first."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in table):
        rows = sorted((row for row in table if row["task"] == task), key=lambda row: -row["headline"])
        lines += [
            f"{task}, {' or '.join(map(str, sorted({row['seeds'] for row in rows})))} seeds",
            "",
            "| agent | M^inf, N | last three evaluations | 95 % interval | after training | 95 % interval "
            "| ms an update | ms a decision | MiB of state | MiB of process |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}"
            lines.append(
                f"| `{row['agent']}` | {row['steps']}, {row['candidates']} "
                f"| {row['headline']:.2f} | {row['headline_low']:.2f} .. {row['headline_high']:.2f} "
                f"| {row['final']:.2f} | {row['final_low']:.2f} .. {row['final_high']:.2f} "
                f"| {row['update_ms']:.2f} | {row['decision_ms']:.2f} "
                f"| {row['state_bytes'] / 2**20:.1f} | {peak} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip()


def machine(members: Sequence[Member]) -> Row:
    """The machine and software of the comparison."""
    return versions(members[0].config) | {"cores": available_cores()}


def command() -> int:
    """Runs the command line; **returns** 1 if some of the runs failed."""
    try:
        words = with_joined_options(sys.argv[1:])
        config = command_line.parse(Config, words, prog="python benchmarks/compare.py")
        return int(sum(row["seeds"] for row in main(config)) < len(make_members(config)))
    except FailedRuns as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
