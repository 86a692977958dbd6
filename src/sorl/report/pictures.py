"""Pictures that compare runs: learning curves, scores, improvement, budgets, ablations and run time."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sorl.report.runs import ReportedRun
from sorl.statistics.aggregates import Estimate
from sorl.statistics.intervals import Interval, Row, success_interval
from sorl.system.pictures import legend, plain, write_picture


SUCCESS_AXIS: dict[str, Any] = {"ylabel": "success (%)", "ylim": (-3, 103)}


def save(path: Path, draw: Callable[..., None], *, columns: int = 1, width: float = 5.0, height: float = 3.6) -> Path:
    """Calls `draw` with `columns` axes side by side and writes the figure; needs matplotlib (`ImportError`)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width * columns, height), layout="constrained", squeeze=False)
    draw(*axes[0])
    write_picture(figure, path)
    return path


def learning_curves(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Success against updates on one task: a line for each method with the 95 % interval of its mean."""
    for method, own in _by_method(runs).items():
        points: dict[int, list[Row]] = defaultdict(list)
        for run in own:
            for row in run.evaluations:
                points[row["step"]].append(row)
        steps = sorted(points)
        intervals = [_interval(points[step]) for step in steps]
        (line,) = axes.plot(steps, [100 * interval.success for interval in intervals], label=plain(method))
        low, high = ([100 * interval[end] for interval in intervals] for end in (1, 2))
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set(xlabel="updates", title=plain(runs[0].task), **SUCCESS_AXIS)
    axes.locator_params(axis="x", nbins=5)
    legend(axes, fontsize=8)


def estimates(axes: Any, rows: Mapping[str, Estimate | Interval], label: str, middle: float | None = None) -> None:
    """A point with its interval for each row, the first row at the top; `middle` is a value to mark by a line."""
    for place, (value, low, high, *_) in enumerate(reversed(list(rows.values()))):
        axes.plot([100 * low, 100 * high], [place, place], color="C0", linewidth=5, alpha=0.3, solid_capstyle="butt")
        axes.plot(100 * value, place, "|", color="C0", markersize=14, markeredgewidth=2)
        axes.annotate(f"{100 * value:.0f}", (100 * value, place), (0, 9), textcoords="offset points", fontsize=7)
    axes.set_yticks(range(len(rows)), [plain(name) for name in rows][::-1], fontsize=8)
    axes.set(xlabel=label, xlim=(-3, 103), ylim=(-0.7, len(rows) - 0.3))
    if middle is not None:
        axes.axvline(100 * middle, color="0.6", linestyle=":", linewidth=1)


def success_against_steps(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Success after training against M^inf: a line for each method (the paper's Fig. 1)."""
    for method, own in _by_method(runs).items():
        intervals = {steps: _interval(found) for (steps, n), found in _budgets(own).items() if n == 1}
        _line(axes, sorted(intervals.items()), plain(method))
    _log_ticks(axes, sorted({row["inference_steps"] for run in runs for row in run.table}))
    axes.set(xlabel="inference steps $M^{inf}$", title="more steps", **SUCCESS_AXIS)
    legend(axes, fontsize=8)


def budget_bars(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Success at each M^inf, a bar for each M^BTT; beyond M^BTT, best of the most candidates, hatched (Fig. 2)."""
    groups = _by_backprop_steps(runs)
    steps = sorted({row["inference_steps"] for run in runs for row in run.table})
    width = 0.8 / len(groups)
    for place, (most, own) in enumerate(sorted(groups.items())):
        found = _budgets(own)
        candidates = max(n for _, n in found)
        for tick, inference_steps in enumerate(steps):
            chosen = candidates if inference_steps > most else 1
            if (inference_steps, chosen) not in found:
                continue
            interval = _interval(found[inference_steps, chosen])
            axes.bar(
                tick + (place - (len(groups) - 1) / 2) * width,
                100 * interval.success,
                width,
                color=f"C{place}",
                hatch="//" if chosen > 1 else None,
                edgecolor="white",
                yerr=100 * np.abs([[interval.success - interval.success_low], [interval.success_high - interval[0]]]),
                ecolor="0.3",
                label=f"$M^{{BTT}}$ {most}" if tick == 0 else None,
            )
    axes.set_xticks(range(len(steps)), [str(tick) for tick in steps])
    axes.set(xlabel="inference steps $M^{inf}$ (hatched: beyond $M^{BTT}$, best of N)", **SUCCESS_AXIS)
    legend(axes, fontsize=8)


def backprop_steps_ablation(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Success against M^BTT, for policies that act with one step and with M^BTT steps (Fig. 4)."""
    groups = _by_backprop_steps(runs)
    for label, wanted in (("$M^{inf}$ = 1", lambda most: 1), ("$M^{inf}$ = $M^{BTT}$", lambda most: most)):
        points = [
            (most, _interval(found[wanted(most), 1]))
            for most, own in sorted(groups.items())
            if (wanted(most), 1) in (found := _budgets(own))
        ]
        _line(axes, points, label)
    _log_ticks(axes, sorted(groups))
    axes.set(xlabel="$M^{BTT}$", **SUCCESS_AXIS)
    legend(axes, fontsize=8)


def width_ablation(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Success at the run's own budget against the width of the policy: a line for each agent (Fig. 5)."""
    agents: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        sizes = run.budget.inference_steps, run.budget.candidates
        rows = [row for row in run.table if (row["inference_steps"], row["candidates"]) == sizes]
        agents[type(run.config.agent).__name__][width_of(run)] += rows
    for agent, widths in agents.items():
        _line(axes, [(width, _interval(rows)) for width, rows in sorted(widths.items()) if rows], agent)
    _log_ticks(axes, sorted({width for widths in agents.values() for width in widths}))
    axes.set(xlabel="units of the policy's hidden layers", **SUCCESS_AXIS)
    legend(axes, fontsize=8)


def update_times(axes: Any, found: dict[str, Any]) -> None:
    """Milliseconds per update against M^BTT, as measured by `benchmarks/runtime.py` (Fig. 3, left)."""
    for seeds in sorted({row["seeds"] for row in found["updates"]}):
        rows = [row for row in found["updates"] if row["seeds"] == seeds]
        label = "one seed" if seeds == 1 else f"{seeds} seeds"
        axes.plot([row["backprop_steps"] for row in rows], [row["milliseconds"] for row in rows], "o-", label=label)
    _log_ticks(axes, sorted({row["backprop_steps"] for row in found["updates"]}), logarithm=False)
    axes.set(xlabel="$M^{BTT}$", ylabel="ms an update", title="training", ylim=(0, None))
    legend(axes, fontsize=8)


def decision_times(axes: Any, found: dict[str, Any]) -> None:
    """Milliseconds per decision for the smallest batch against M^inf (Fig. 3, right)."""
    rows = [row for row in found["decisions"] if row["batch"] == min(each["batch"] for each in found["decisions"])]
    for candidates in sorted({row["candidates"] for row in rows}):
        own = [row for row in rows if row["candidates"] == candidates]
        label = "one sample" if candidates == 1 else f"best of {candidates}"
        axes.plot([row["inference_steps"] for row in own], [row["milliseconds"] for row in own], "o-", label=label)
    _log_ticks(axes, sorted({row["inference_steps"] for row in rows}), logarithm=False)
    axes.set(xlabel="$M^{inf}$", ylabel="ms a decision", title="acting", ylim=(0, None))
    legend(axes, fontsize=8)


def backprop_steps_of(run: ReportedRun) -> int | None:
    """M^BTT of a run; None if its agent has none."""
    return getattr(run.config.agent, "backprop_steps", None)


def width_of(run: ReportedRun) -> int:
    """Units of the policy's first hidden layer."""
    agent: Any = run.config.agent
    return agent.hidden_sizes[0] if hasattr(agent, "hidden_sizes") else agent.width


def _by_method(runs: Sequence[ReportedRun]) -> dict[str, list[ReportedRun]]:
    groups: dict[str, list[ReportedRun]] = defaultdict(list)
    for run in runs:
        groups[run.method].append(run)
    return groups


def _by_backprop_steps(runs: Sequence[ReportedRun]) -> dict[int, list[ReportedRun]]:
    groups: dict[int, list[ReportedRun]] = defaultdict(list)
    for run in runs:
        most = backprop_steps_of(run)
        if most is not None and run.table:
            groups[most].append(run)
    return groups


def _budgets(runs: Sequence[ReportedRun]) -> dict[tuple[int, int], list[Row]]:
    groups: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for run in runs:
        for row in run.table:
            groups[row["inference_steps"], row["candidates"]].append(row)
    return groups


def _interval(rows: Sequence[Row]) -> Interval:
    successes, episodes = (np.array([row[name] for row in rows]) for name in ("successes", "episodes"))
    return success_interval(successes, episodes)


def _line(axes: Any, points: Sequence[tuple[int, Interval]], label: str) -> None:
    if not points:
        return
    places = np.log2([place for place, _ in points])
    success, low, high = np.array([[100 * number for number in interval[:3]] for _, interval in points]).T
    axes.errorbar(places, success, np.abs([success - low, high - success]), marker="o", capsize=3, label=label)


def _log_ticks(axes: Any, ticks: Sequence[int], *, logarithm: bool = True) -> None:
    axes.set_xticks(np.log2(ticks) if logarithm else ticks, [str(tick) for tick in ticks])
