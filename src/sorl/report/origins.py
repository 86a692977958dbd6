"""Where the numbers of a report come from: runs, data, software, and the commands that repeat them."""

from collections.abc import Sequence
from typing import Any

from sorl.report.page import Page
from sorl.report.run import ReportedRun
from sorl.statistics.measures import SUCCESS
from sorl.statistics.rows import settings_text


SOFTWARE = {"device": "device", "sorl": "sorl", "git_commit": "commit", "jax": "jax", "ogbench": "ogbench"}
"""The entries of a run's versions that the page shows, and the headings of their columns."""


def add_origins(page: Page, runs: Sequence[ReportedRun], command: str) -> None:
    """Adds the table of runs and the commands that repeat them; `command` is the one that repeats this page."""
    page.section("Where the numbers come from")
    rows = [
        [
            str(run.directory),
            run.method,
            run.task,
            " ".join(map(str, run.config.seeds)),
            f"{run.updates}",
            _data(run.versions),
            _judged(run),
            *(str(run.versions.get(name) or "unknown")[:12] for name in SOFTWARE),
        ]
        for run in runs
    ]
    columns = ["run", "method", "task", "seeds", "updates", "data", "success judged", *SOFTWARE.values()]
    page.table(columns, rows)
    for run in runs:
        if run.bad_seeds:
            seeds = ", ".join(map(str, run.bad_seeds))
            own = f" ({settings_text(run.settings)})" if run.settings else ""
            page.text(f"{run.directory}{own}: not counted, because losses became non-finite: seed {seeds}.")
    page.text("These commands repeat each run; the last one writes this page again.")
    page.command(list(dict.fromkeys(run.command for run in runs)))
    page.command([command])


def _data(versions: dict[str, Any]) -> str:
    data = versions.get("data")
    if not isinstance(data, dict):
        return "unknown"
    digest = str(data.get("sha256", "unknown"))[:8]
    return f"{data.get('source', 'unknown')}, {data.get('episodes', '?')} episodes, SHA-256 {digest}"


def _judged(run: ReportedRun) -> str:
    """How success is judged: before or after a step (pre or post, OGBench), or by the environment, if any."""
    if run.config.env is None:
        return "-"
    if timing := run.config.success_timing:
        return timing
    return "by the environment" if run.measure == SUCCESS else "not reported"
