"""The section of a report about assessments without a simulator."""

from collections.abc import Callable, Sequence
from typing import Any

from sorl.assess.pictures import draw_calibration, draw_distances, draw_values
from sorl.assess.record import Assessment, Value
from sorl.assess.trust import distance_ratio
from sorl.report.page import Page
from sorl.report.run import ReportedRun


def add_assessments(page: Page, runs: Sequence[ReportedRun], add_picture: Callable[..., None]) -> None:
    """Adds the assessment of each run that has one; without any, the command that makes one for a run on logs alone.

    **Arguments:** `add_picture(name, draw, columns=..., width=...)` calls `draw` with so many axes side by side.
    """
    # The runs of a population share one directory and so one assessment.
    found = {run.directory: (run, run.assessment) for run in reversed(runs) if run.assessment is not None}
    on_logs = [run for run in runs if run.config.env is None]
    if not found and not on_logs:
        return
    page.section("Without a simulator")
    if not found:
        page.text(f"To judge a policy by held-out episodes of its logs: python -m sorl.assess {on_logs[0].place}")
    for run, assessment in reversed(found.values()):
        page.text(_title(run, assessment))

        def draw(left: Any, middle: Any, right: Any, assessment: Assessment = assessment) -> None:
            draw_values(left, assessment)
            draw_distances(middle, assessment)
            draw_calibration(right, assessment)

        add_picture(f"assessment-{run.directory.name}", draw, columns=3, width=4.2)
        page.table(*_budgets(assessment))
        page.table(*_critics(assessment))
        for note in assessment.notes:
            page.text(note)


def _title(run: ReportedRun, found: Assessment) -> str:
    policy, data = found.policy, found.data
    later = ""
    if policy.step is not None and policy.step < run.updates:
        later = f" The run has gone on to update {run.updates} since: run python -m sorl.assess {run.place} again."
    return (
        f"{run.task}, {run.method}, seed {policy.seed}, update {policy.step}: python -m sorl.assess {run.place}. "
        f"Values are discounted by {data.discount:g} per step ({data.discount_from}) and read at the first states of "
        f"{data.held_out_episodes} held-out episodes, with 95 % bootstrap intervals over them; distances are in halves "
        f"of the action range.{later}"
    )


def _budgets(found: Assessment) -> tuple[list[str], list[list[str]]]:
    behaviour = found.behaviour
    returned = f"{behaviour.returned_low:.4g} .. {behaviour.returned_high:.4g}"
    rows = [
        ["returned in the logs", f"{behaviour.returned:.4g}", returned, *[""] * 7],
        ["behaviour", *_interval(behaviour.fitted), *[""] * 4, "1.00", "", f"{behaviour.jerk:.3f}"],
    ]
    for one in found.budgets:
        own = ["-", "-"] if one.own_value is None else [f"{one.own_value:.4g}", f"{one.over_estimation:+.4g}"]
        rows.append(
            [one.budget.name, *_interval(one.fitted), f"{one.gain:+.4g}", *own]
            + [f"{one.energy_score:.3f}", f"{distance_ratio(found, one):.2f}"]
            + [f"{max(one.outside):.1%}", f"{one.jerk:.3f}"]
        )
    columns = ["", "fitted value", "95 % interval", "gain", "own Q", "too high by", "energy score"]
    return [*columns, "to neighbours, x logged", "outside", "jerk"], rows


def _critics(found: Assessment) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            one.critic,
            "-" if one.rank_correlation is None else f"{one.rank_correlation:.2f}",
            f"{one.bias:+.4g}",
            f"{one.error:.4g}",
            f"{one.disagreement:.4g}",
        ]
        for one in found.calibrations
    ]
    return ["critic along held-out episodes", "rank correlation", "bias", "error", "deviation of heads"], rows


def _interval(found: Value) -> list[str]:
    return [f"{found.value:.4g}", f"{found.value_low:.4g} .. {found.value_high:.4g}"]
