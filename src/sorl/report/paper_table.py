"""The papers' table beside the runs' own scores, for each environment and method."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sorl.agents.registry import published_success
from sorl.agents.shared.published import environment_of
from sorl.config import presets
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig
from sorl.report.page import Page
from sorl.report.run import ReportedRun
from sorl.report.scores import last_evaluations, scores, task_measure
from sorl.statistics.aggregates import Estimate, fewest_seeds, interval_text, mean_over_tasks
from sorl.statistics.measures import SUCCESS


PAPER = "paper"
"""The tag of a run that is trained and judged as in the papers."""
EPISODES = 50
"""Episodes of one evaluation in the papers."""
COLUMNS = ("environment", "method", "published", "here", "95 % interval", "tasks", "seeds", "protocol")
EXPLANATION = (
    "Published: mean success over the five tasks of an environment and eight seeds. Here: the mean, over the tasks run "
    "and their seeds, of the last three evaluations during training; the 95 % interval is Student's t over the seeds "
    "of each task, at least as wide as Wilson's over their episodes. The protocol says what differs from the papers'; "
    f"only where it is {PAPER!r} are the numbers comparable."
)


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """One method in one environment."""

    environment: str
    method: str
    published: float | None
    """Published success, between 0 and 1; None if there is none."""
    here: Estimate
    tasks: int
    """Number of tasks of the environment that were run."""
    seeds: int
    """The lowest number of seeds of a task."""
    protocol: str
    """`protocol` of the runs."""

    def cells(self) -> list[str]:
        """The row as text, by `COLUMNS`."""
        published = "-" if self.published is None else f"{self.published:.2f}"
        interval = interval_text(self.here, self.seeds)
        counts = [f"{self.tasks}", f"{self.seeds}"]
        return [self.environment, self.method, published, f"{self.here.value:.3f}", interval, *counts, self.protocol]


def paper_rows(runs: Sequence[ReportedRun]) -> list[PaperRow]:
    """A row for each environment and method whose runs report success, in the order of the runs."""
    found, last = [], last_evaluations(runs)
    for method, tasks in scores(runs).items():
        judged = [task for task in tasks if task_measure(runs, task) == SUCCESS]
        for environment in dict.fromkeys(map(environment_of, judged)):
            chosen = [task for task in judged if environment_of(task) == environment]
            own = [tasks[task] for task in chosen]
            # The evaluations of a seed play the same episodes.
            played = [sum(rows[0]["episodes"] for rows in last[method][task]) for task in chosen]
            of_method = [run for run in runs if run.method == method and environment_of(run.task) == environment]
            percent = published_success(type(of_method[0].config.agent), environment)
            success = None if percent is None else percent / 100
            tags = dict.fromkeys(protocol(run.config, run.versions.get("data") or {}) for run in of_method)
            sizes = len(own), fewest_seeds(own)
            here = mean_over_tasks(own, played)
            found.append(PaperRow(environment, method, success, here, *sizes, " / ".join(tags)))
    order = [environment_of(run.task) for run in runs]
    return sorted(found, key=lambda row: order.index(row.environment))


def add_published(page: Page, runs: Sequence[ReportedRun]) -> None:
    """Adds the published scores beside the runs' own, if the runs' tasks have any."""
    rows = [row for row in paper_rows(runs) if row.published is not None]
    if rows:
        page.section("Beside the published scores")
        page.text(EXPLANATION)
        page.table(COLUMNS, [row.cells() for row in rows])


def protocol(config: TrainConfig, data: Mapping[str, Any], departures: Sequence[str] = ()) -> str:
    """A tag of how a run was trained and judged: `paper`, or what differs from the papers, joined by `+`.

    **Arguments:** `data`, the provenance of the run's data; `departures`, other differences, in words.
    """
    agent, differences = config.agent, []
    published = agent.published.of_task(config.env or "")
    if data.get("source") != "official":
        differences.append(f"{str(data.get('source', 'unknown')).replace(' ', '-')}-data")
    if config.updates != agent.published.updates:
        differences.append(f"{config.updates}-updates")
    if config.success_timing == "pre":
        differences.append("success-pre-step")
    if config.evaluation.episodes != EPISODES:
        differences.append(f"{config.evaluation.episodes}-episodes")
    if config.evaluation.interval != agent.published.evaluation_interval:
        differences.append(f"every-{config.evaluation.interval}-updates")
    if (budget := config.budgets(final=False)[0]) != agent.actor.budgets.usual:
        differences.append(budget.name)
    if data.get("sparse_rewards"):
        differences.append("sparse-rewards")
    usual = None if published is None else presets.paper(config.env or "", type(agent))
    if usual is None or (to_json(agent), config.batch_size) != (to_json(usual.agent), usual.batch_size):
        differences.append("own-settings")
    differences += [words.replace(" ", "-") for words in departures]
    return "+".join(differences) or PAPER
