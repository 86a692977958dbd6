"""Rows of evaluations, one for each training seed and budget, and what tells them apart."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sorl.statistics.missing_success import reports_success, with_success


BUDGET_FIELDS = (
    "inference_steps",
    "candidates",
    "noise_scale",
    "policy_conditioning",
    "critic_conditioning",
    "verifier",
)
"""The fields of an evaluation row that identify its budget."""

SETTING = "agent."
"""The columns of a row whose names begin so hold the hyper-parameters of a member of a population."""

Row = Mapping[str, Any]
"""An evaluation of one training seed at one budget: `EvaluationResult.row()` with `step` and `training_seed`."""


def evaluation_rows(metrics: Iterable[Row], episodes: int, noise_scale: float = 1.0) -> list[dict[str, Any]]:
    """The evaluations in a run's metrics, one row for each step, training seed and budget, for `summarise`.

    **Arguments:** `metrics`, rows of `runs.metrics.read_metrics`; `episodes` and `noise_scale`, those of each
    evaluation. Where one of them has a success, all have: a missing one counts as none.
    """
    metrics, rows = [*metrics], []
    if reports_success(metrics):
        metrics = [with_success(metric) for metric in metrics]
    for metric in metrics:
        for name, mean in metric.items():
            if budget := re.fullmatch(r"evaluation/return/(M(\d+)N(\d+)(?:-(.+))?)", name):
                row = dict.fromkeys(BUDGET_FIELDS) | {"noise_scale": noise_scale}
                row |= {"steps_per_second": math.nan, "episodes": episodes}
                row |= {"inference_steps": int(budget[2]), "candidates": int(budget[3]), "verifier": budget[4]}
                success = metric.get(f"evaluation/success/{budget[1]}")
                successes = None if success is None else round(success * episodes)
                row |= settings(metric) | {
                    "step": metric["step"],
                    "training_seed": metric["seed"],
                    "successes": successes,
                    "return": mean,
                }
                row |= {key: metric.get(f"evaluation/{key}/{budget[1]}") for key in ("return_low", "return_high")}
                row["length"] = metric[f"evaluation/episode_length/{budget[1]}"]
                rows.append(row)
    return rows


def settings(row: Row) -> dict[str, float]:
    """The hyper-parameters of the member of a population that a row is about, by dotted name; else empty."""
    return {name: value for name, value in row.items() if name.startswith(SETTING)}


def settings_text(settings: Mapping[str, float]) -> str:
    """The values of hyper-parameters in words that tell different ones apart, such as `agent.q_coefficient 10`."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in settings.items())


def _shown(value: float) -> str:
    return text if float(text := f"{value:g}") == value else repr(float(value))


def member_of(row: Row) -> int:
    """The number of the member that a row is about: in a population its number, else the training seed."""
    return next(row[name] for name in ("member", "training_seed", "seed") if name in row)
