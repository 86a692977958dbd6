"""The score of each training seed of a report's runs, by method and by task."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from sorl.report.runs import ReportedRun
from sorl.statistics.measures import RETURN, SUCCESS, Measure


Scores = dict[str, dict[str, np.ndarray]]
"""By method and by task, one score for each seed."""


def task_measure(runs: Sequence[ReportedRun], task: str) -> Measure:
    """The measure by which all runs on a task are compared: success if all have it, else the return."""
    return SUCCESS if all(run.measure == SUCCESS for run in runs if run.task == task) else RETURN


def scores(runs: Sequence[ReportedRun]) -> Scores:
    """Each seed's score, the mean of its last three evaluations during training, by method and by task.

    It is the success, or the return on tasks whose environment reports none.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    measures = {run.task: task_measure(runs, run.task) for run in runs}
    for run in runs:
        judged = measures[run.task] == SUCCESS
        seeds: dict[int, list[float]] = defaultdict(list)
        for row in sorted(run.evaluations, key=lambda row: row["step"]):
            score = row["successes"] / row["episodes"] if judged else row["return"]
            seeds[row["training_seed"]].append(score)
        for own in seeds.values():
            found[run.method][run.task].append(float(np.mean(own[-3:])))
    return {method: {task: np.array(own) for task, own in tasks.items()} for method, tasks in found.items()}
