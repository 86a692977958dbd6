"""`python -m sorl.sweep results DIR`: the results of a sweep's finished runs, as a table of rows and a page of text.

Nothing in them depends on when, where or in how many attempts the runs were trained.
"""

import dataclasses
import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from sorl.agents.shared.published import environment_of
from sorl.config.own_agents import OwnAgents
from sorl.report.methods import departures_of_table
from sorl.report.paper_table import COLUMNS, EXPLANATION, paper_rows, protocol
from sorl.report.run import ReportedRun
from sorl.report.runs import read_runs
from sorl.report.scores import last_evaluations, scores, task_measure
from sorl.runs.sweeps import SweepRun, read_plan
from sorl.statistics.aggregates import fewest_seeds, interquartile_mean, interval_text, probability_of_improvement
from sorl.statistics.intervals import INTERVALS
from sorl.statistics.measures import SUCCESS, Measure
from sorl.statistics.rows import evaluation_rows, settings_text
from sorl.statistics.tables import score_interval
from sorl.sweep.ledger import is_finished
from sorl.sweep.table import counts, read_states
from sorl.system import command_line
from sorl.system.files import whole_file, write_csv


CSV, TEXT = "results.csv", "results.md"
"""The files in the directory of the sweep."""

FIELDS = (
    *("agent", "environment", "task", "member", "seed", "phase", "step", "inference_steps", "candidates", "success"),
    *("successes", "episodes", "return", "episode_length", "success_timing", "protocol"),
    *("data_source", "data_episodes", "data_sha256", "sorl", "git_commit", "source_sha256", "jax", "ogbench", "mujoco"),
    *("settings", "settings_digest", "run"),
)
"""The columns of `results.csv`. `member` has the hyper-parameters of a member of a population, `phase` is `training` or
`final` (the table after the last update), and `run` is the run directory within that of the sweep."""

VERSIONS = ("sorl", "git_commit", "source_sha256", "jax", "ogbench", "mujoco")

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
    """Writes results.csv (a row for each evaluation of each seed) and results.md (the paper's table beside the sweep's,
    interquartile means, probabilities of improvement) into the directory of a sweep, from its finished runs."""

    sweep: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Directory of the sweep."""
    own_agents: Annotated[OwnAgents, tyro.conf.arg(name="")] = dataclasses.field(default_factory=OwnAgents)


def write_results(out: Path) -> str:
    """Writes both files; **returns** the text of `results.md`, and prints it."""
    runs = read_plan(out)[1]
    # A run whose losses all became non-finite at once has nothing to report, and is left out.
    planned = {out / run.directory: run for run in runs}
    finished = [
        path for path, run in planned.items() if is_finished(path, run.policies, run.updates, evaluated=run.evaluated)
    ]
    read = read_runs(finished, [planned[path].method for path in finished]) if finished else []
    rows = [row for run in read for row in _rows(planned[run.directory], run)]
    write_csv(out / CSV, rows, FIELDS)
    text = "\n".join([f"{counts(read_states(out, runs)).partition(',')[0]}.", *_tables(read)])
    with whole_file(out / TEXT) as file:
        file.write(f"{text}\n")
    modules = "".join(dict.fromkeys(run.module_option for run in read))
    print(f"{text}\nWrote {out / CSV} and {TEXT}; for a page: python -m sorl.report {shlex.quote(str(out))}{modules}")
    return text


def _rows(planned: SweepRun, run: ReportedRun) -> list[Row]:
    """The rows of one run: its evaluations during training, then those of its final table."""
    config, data = run.config, run.versions.get("data") or {}
    # The table may have been made by sorl.evaluate, with decisions of another kind.
    departures = departures_of_table(config, run.table) if run.table else []
    tags = {"training": protocol(config, data), "final": protocol(config, data, departures)}
    same: Row = {
        "agent": planned.agent,
        "environment": environment_of(run.task),
        "task": run.task,
        "success_timing": config.success_timing,
        "member": settings_text(run.settings),
        "settings": "; ".join(f"{name} {value}" for name, value in planned.settings.items()),
        "settings_digest": planned.digest,
        "run": planned.directory,
    }
    same |= {f"data_{name}": data.get(name) for name in ("source", "episodes", "sha256")}
    same |= {name: run.versions.get(name) for name in VERSIONS}
    training = evaluation_rows(run.metrics, config.evaluation.episodes, run.budget.noise_scale)
    found = [(phase, row) for phase, rows in (("training", training), ("final", run.table)) for row in rows]
    rows = [same | {"protocol": tags[phase]} | _of_evaluation(phase, row) for phase, row in found]
    return [{name: row.get(name) for name in FIELDS} for row in rows]


def _of_evaluation(phase: str, row: Row) -> Row:
    episodes, successes = row["episodes"], row["successes"]
    success = None if successes is None else successes / episodes
    own = {"phase": phase, "seed": row["training_seed"], "success": success, "episode_length": row.get("length")}
    if "success_timing" in row:  # sorl.evaluate may have judged otherwise than the evaluations during training
        own["success_timing"] = row["success_timing"]
    return own | {
        name: row.get(name) for name in ("step", "inference_steps", "candidates", "successes", "episodes", "return")
    }


def _tables(runs: Sequence[ReportedRun]) -> list[str]:
    """The tables of `results.md`, as lines of Markdown."""
    if not any(run.evaluations for run in runs):
        return ["", "No finished run was evaluated while it trained, so there is no score."]
    found, last = scores(runs), last_evaluations(runs)
    lines = []
    if beside := paper_rows(runs):
        lines += ["", "## Beside the published scores", "", EXPLANATION, ""]
        lines += _markdown(COLUMNS, [row.cells() for row in beside])
    lines += ["", "## Each task", ""]
    per_task = [
        [task, method, *_score(seeds, task_measure(runs, task)), f"{len(seeds)}"]
        for method, tasks in last.items()
        for task, seeds in tasks.items()
    ]
    lines += _markdown(["task", "method", "score", "95 % interval", "seeds"], sorted(per_task))
    lines += ["", f"95 % interval: {INTERVALS['student']}."]
    # Over all tasks only methods that were run on all of them can be compared, and only by success.
    judged = list(dict.fromkeys(run.task for run in runs if task_measure(runs, run.task) == SUCCESS))
    everywhere = {method: [own[task] for task in judged] for method, own in found.items() if own.keys() >= {*judged}}
    if judged and everywhere:
        lines += ["", f"## Interquartile mean over {len(judged)} task{'s' * (len(judged) > 1)}", ""]
        means = {method: interquartile_mean(own) for method, own in everywhere.items()}
        rows = [
            [method, f"{one.value:.3f}", interval_text(one, fewest_seeds(everywhere[method]))]
            for method, one in means.items()
        ]
        lines += _markdown(["method", "interquartile mean", "95 % interval"], rows)
    pairs = list(itertools.combinations(everywhere.items(), 2))
    if judged and pairs:
        lines += ["", "## Probability of improvement", ""]
        rows = []
        for (one, own), (other, others) in pairs:
            found = probability_of_improvement(own, others)
            rows.append([one, other, f"{found.value:.3f}", interval_text(found, fewest_seeds(own, others))])
        lines += _markdown(["first", "second", "first is better", "95 % interval"], rows)
    return lines


def _score(seeds: Sequence[Sequence[Mapping[str, Any]]], measure: Measure) -> tuple[str, str]:
    """The mean over seeds and its interval, if there are several."""
    found = score_interval(seeds, measure)
    return measure.text(found.mean), measure.range(found.low, found.high) if len(seeds) > 1 else "-"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    # A bar within a cell, as the path of data may have, would begin another cell.
    return head + ["| {} |".format(" | ".join(cell.replace("|", r"\|") for cell in row)) for row in rows]


def parse(words: Sequence[str]) -> Config:
    """Parses the words behind `python -m sorl.sweep results`."""
    return command_line.parse(Config, words, prog="python -m sorl.sweep results")


def command() -> None:
    """Runs the command line."""
    config = parse(sys.argv[2:])
    config.own_agents.load()
    write_results(config.sweep.expanduser().absolute())
