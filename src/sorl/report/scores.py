"""The score of each training seed of a report's runs, by method and by task."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sorl.report.run import ReportedRun
from sorl.statistics.measures import RETURN, SUCCESS, Measure
from sorl.statistics.rows import Row


Scores = dict[str, dict[str, np.ndarray]]
"""By method and by task, one score for each seed."""


def task_measure(runs: Sequence[ReportedRun], task: str) -> Measure:
    """The measure by which all runs on a task are compared: success if all have it, else the return."""
    return SUCCESS if all(run.measure == SUCCESS for run in runs if run.task == task) else RETURN


def last_evaluations(runs: Sequence[ReportedRun]) -> dict[str, dict[str, list[list[Row]]]]:
    """The last three evaluations during training of each seed, by method and by task."""
    found: dict[str, dict[str, list[list[Row]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        seeds: dict[int, list[Row]] = defaultdict(list)
        for row in sorted(run.evaluations, key=lambda row: row["step"]):
            seeds[row["training_seed"]].append(row)
        if seeds:
            found[run.method][run.task] += [own[-3:] for own in seeds.values()]
    return {method: dict(tasks) for method, tasks in found.items()}


def scores(runs: Sequence[ReportedRun]) -> Scores:
    """Each seed's score, the mean of its last three evaluations during training, by method and by task.

    It is the success, or the return on tasks whose environment reports none.
    """
    measures = {run.task: task_measure(runs, run.task) for run in runs}
    return {
        method: {task: np.array([_score(rows, measures[task]) for rows in seeds]) for task, seeds in tasks.items()}
        for method, tasks in last_evaluations(runs).items()
    }


def _score(rows: Sequence[Row], measure: Measure) -> float:
    judged = measure == SUCCESS
    return float(np.mean([row["successes"] / row["episodes"] if judged else row["return"] for row in rows]))
