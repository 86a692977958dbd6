"""A success that an environment leaves out, although it reports one elsewhere, counts as none.

Many environments give `info["success"]` only when they succeed. A policy that never succeeds then has no success at
all, which would leave rows without a common measure.
"""

from collections.abc import Iterable, Mapping
from typing import Any


SUCCESS_METRIC, RETURN_METRIC = "evaluation/success/", "evaluation/return/"
"""How the names of an evaluation's metrics begin; they end with the budget."""


def reports_success(metrics: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a row of `sorl.runs.metrics.read_metrics` has a success."""
    return any(name.startswith(SUCCESS_METRIC) for row in metrics for name in row)


def with_success(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics in which every evaluation has a success: 0 where there was none."""
    budgets = [name.removeprefix(RETURN_METRIC) for name in row if name.startswith(RETURN_METRIC)]
    return {f"{SUCCESS_METRIC}{budget}": 0.0 for budget in budgets} | {**row}
