"""A run's scaling grid in a report: its pictures and its table."""

from collections.abc import Callable
from typing import Any

from sorl.report.page import Page
from sorl.report.run import ReportedRun
from sorl.scaling.pictures import draw_pareto_front, draw_score_against_candidates, draw_score_against_steps
from sorl.scaling.summary import measure_of_pairs


def add_grid(page: Page, run: ReportedRun, add_picture: Callable[..., None]) -> None:
    """Adds the pictures and the table of a run's scaling grid.

    **Arguments:** `add_picture(name, draw, columns=..., width=...)` calls `draw` with so many axes side by side.
    """
    page.text(
        f"{run.task}, {run.method}: python -m sorl.scaling {run.place}, {run.pairs[0]['seeds']} training "
        f"seeds, {run.pairs[0]['episodes']} episodes each; all pairs play the same episodes."
    )

    def draw(left: Any, middle: Any, right: Any) -> None:
        draw_score_against_steps(left, run.pairs)
        draw_score_against_candidates(middle, run.pairs)
        draw_pareto_front(right, run.pairs)

    add_picture(f"scaling-{run.directory.name}", draw, columns=3, width=4.2)
    # The table gives the numbers behind the pictures, and the latencies that they do not show.
    measure = measure_of_pairs(run.pairs)
    name, form = measure.name, f"+{measure.digits}"
    page.table(
        ["M^inf", "N", name, "95 % interval", "against the first", "95 % interval", "ms, median", "p95", ""],
        [
            [
                f"{pair['inference_steps']}",
                f"{pair['candidates']}",
                measure.text(pair[name]),
                measure.range(pair[f"{name}_low"], pair[f"{name}_high"]),
                f"{pair['difference']:{form}}",
                measure.range(pair["difference_low"], pair["difference_high"]),
                f"{pair['latency_ms']:.2f}",
                f"{pair['latency_p95_ms']:.2f}",
                pair["remark"],
            ]
            for pair in run.pairs
        ],
    )
