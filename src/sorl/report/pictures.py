"""Pictures that compare runs: learning curves, scores, improvement, budgets, ablations and run time."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sorl.report.run import ReportedRun
from sorl.report.scores import task_measure
from sorl.statistics.intervals import Interval
from sorl.statistics.measures import SUCCESS, Measure
from sorl.statistics.rows import Row
from sorl.statistics.tables import score_interval
from sorl.system.pictures import legend, plain, pyplot_without_screen, write_picture


def save(path: Path, draw: Callable[..., None], *, columns: int = 1, width: float = 5.0, height: float = 3.6) -> Path:
    """Calls `draw` with `columns` axes side by side and writes the figure; needs matplotlib (`ImportError`)."""
    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots(1, columns, figsize=(width * columns, height), layout="constrained", squeeze=False)
    draw(*axes[0])
    write_picture(figure, path)
    return path


def learning_curves(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Score against updates on one task: a line for each method with the 95 % interval of its mean."""
    measure = _measure(runs)
    for method, own in _by_method(runs).items():
        points: dict[int, list[Row]] = defaultdict(list)
        for run in own:
            for row in run.evaluations:
                points[row["step"]].append(row)
        steps = sorted(points)
        intervals = [_interval(points[step], measure) for step in steps]
        mean, low, high = _ends(intervals, measure)
        (line,) = axes.plot(steps, mean, label=plain(method))
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set(xlabel="updates", title=plain(runs[0].task), **measure.axis)
    axes.locator_params(axis="x", nbins=5)
    legend(axes, fontsize=8)


def estimates(
    axes: Any,
    rows: Mapping[str, Interval | tuple[float, float | None, float | None]],
    label: str,
    measure: Measure = SUCCESS,
    middle: float | None = None,
) -> None:
    """A point with its interval, if known, for each row, the first row at the top; `middle` is a value to mark."""
    factor = measure.factor
    for place, (value, low, high, *_) in enumerate(reversed(list(rows.values()))):
        if low is not None and high is not None:
            ends = [factor * low, factor * high]
            axes.plot(ends, [place, place], color="C0", linewidth=5, alpha=0.3, solid_capstyle="butt")
        axes.plot(factor * value, place, "|", color="C0", markersize=14, markeredgewidth=2)
        text = f"{factor * value:.0f}" if measure == SUCCESS else measure.text(value)
        axes.annotate(text, (factor * value, place), (0, 9), textcoords="offset points", fontsize=7)
    axes.set_yticks(range(len(rows)), [plain(name) for name in rows][::-1], fontsize=8)
    axes.set(xlabel=label, ylim=(-0.7, len(rows) - 0.3))
    if measure.limits is not None:
        axes.set(xlim=measure.limits)
    if middle is not None:
        axes.axvline(factor * middle, color="0.6", linestyle=":", linewidth=1)


def score_against_steps(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Score after training against M^inf, with the fewest candidates: a line for each method (the paper's Fig. 1)."""
    measure = _measure(runs)
    for method, own in _by_method(runs).items():
        budgets = _budgets(own)
        fewest = min(n for _, n in budgets)
        intervals = {steps: _interval(found, measure) for (steps, n), found in budgets.items() if n == fewest}
        label = plain(method) if fewest == 1 else f"{plain(method)}, best of {fewest}"
        _line(axes, sorted(intervals.items()), label, measure)
    _log_ticks(axes, sorted({row["inference_steps"] for run in runs for row in run.table}))
    axes.set(xlabel="inference steps $M^{inf}$", title="more steps", **measure.axis)
    legend(axes, fontsize=8)


def budget_bars(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Score at each M^inf, a bar for each method; beyond M^BTT, best of the most candidates, hatched (Fig. 2)."""
    measure = _measure(runs)
    lines = _ablated(runs, backprop_steps_of, "backprop_steps")
    bars = [(line, *point) for line, points in lines.items() for point in points]
    steps = sorted({row["inference_steps"] for run in runs for row in run.table})
    width = 0.8 / len(bars)
    # One colour for each method; its bars stand side by side at each M^inf.
    for place, (line, most, own) in enumerate(bars):
        found = _budgets(own)
        candidates = max(n for _, n in found)
        for tick, inference_steps in enumerate(steps):
            chosen = candidates if inference_steps > most else 1
            if (inference_steps, chosen) not in found:
                continue
            mean, low, high = _ends([_interval(found[inference_steps, chosen], measure)], measure)
            axes.bar(
                tick + (place - (len(bars) - 1) / 2) * width,
                mean[0],
                width,
                color=f"C{place}",
                hatch="//" if chosen > 1 else None,
                edgecolor="white",
                yerr=np.abs([mean - low, high - mean]),
                ecolor="0.3",
                label=f"{_prefix(line, lines)}$M^{{BTT}}$ {most}" if tick == 0 else None,
            )
    axes.set_xticks(range(len(steps)), [str(tick) for tick in steps])
    axes.set(xlabel="inference steps $M^{inf}$ (hatched: beyond $M^{BTT}$, best of N)", **measure.axis)
    legend(axes, fontsize=8)


def backprop_steps_ablation(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Score of each method against M^BTT, for policies that act with one step and with M^BTT steps (Fig. 4)."""
    measure = _measure(runs)
    lines = _ablated(runs, backprop_steps_of, "backprop_steps")
    for line, methods in lines.items():
        for label, wanted in (("$M^{inf}$ = 1", lambda most: 1), ("$M^{inf}$ = $M^{BTT}$", lambda most: most)):
            points = [
                (most, _interval(found[wanted(most), 1], measure))
                for most, own in methods
                if (wanted(most), 1) in (found := _budgets(own))
            ]
            _line(axes, points, f"{_prefix(line, lines)}{label}", measure)
    _log_ticks(axes, sorted({most for methods in lines.values() for most, _ in methods}))
    axes.set(xlabel="$M^{BTT}$", **measure.axis)
    legend(axes, fontsize=8)


def width_ablation(axes: Any, runs: Sequence[ReportedRun]) -> None:
    """Score of each method at the run's own budget against the width of the policy (Fig. 5)."""
    measure = _measure(runs)
    for line, methods in _ablated(runs, width_of, "hidden_sizes", "width").items():
        rows = [(width, [row for run in own for row in rows_at_own_budget(run)]) for width, own in methods]
        _line(axes, [(width, _interval(found, measure)) for width, found in rows if found], plain(line), measure)
    _log_ticks(axes, sorted({width_of(run) for run in runs}))
    axes.set(xlabel="units of the policy's hidden layers", **measure.axis)
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


def has_single_samples(run: ReportedRun) -> bool:
    """Whether the run's table has what the ablations of M^BTT show: one sample with one step or with M^BTT steps."""
    sizes = {(row["inference_steps"], row["candidates"]) for row in run.table}
    return bool(sizes & {(1, 1), (backprop_steps_of(run), 1)})


def rows_at_own_budget(run: ReportedRun) -> list[Row]:
    """The rows of the table after training at the budget of the evaluations during it."""
    sizes = run.budget.inference_steps, run.budget.candidates
    return [row for row in run.table if (row["inference_steps"], row["candidates"]) == sizes]


def _by_method(runs: Sequence[ReportedRun]) -> dict[str, list[ReportedRun]]:
    groups: dict[str, list[ReportedRun]] = defaultdict(list)
    for run in runs:
        groups[run.method].append(run)
    return groups


def _ablated(
    runs: Sequence[ReportedRun], value: Callable[[ReportedRun], int | None], *options: str
) -> dict[str, list[tuple[int, list[ReportedRun]]]]:
    """The methods that are alike but for some options of the agent: each one's value, ascending, and its runs.

    The key is what their names share. In a name, the words of an option are separate, or, in a sweep, joined by dashes.
    Runs without a table or a value are left out.
    """
    words = "|".join(option.replace("_", "[ _-]") for option in options)
    methods: dict[tuple[str, int], list[ReportedRun]] = defaultdict(list)
    for run in runs:
        if run.table and (own_value := value(run)) is not None:
            methods[run.method, own_value].append(run)
    lines: dict[str, list[tuple[int, list[ReportedRun]]]] = defaultdict(list)
    for (method, one), own in sorted(methods.items(), key=lambda item: item[0][1]):
        lines[re.sub(rf", (agent\.)?({words}) [^,]*", "", method)].append((one, own))
    return lines


def _prefix(line: str, lines: Mapping[str, Any]) -> str:
    """The beginning of a label: the name of the line's method, if there are several."""
    return f"{plain(line)}, " if len(lines) > 1 else ""


def _budgets(runs: Sequence[ReportedRun]) -> dict[tuple[int, int], list[Row]]:
    groups: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for run in runs:
        for row in run.table:
            groups[row["inference_steps"], row["candidates"]].append(row)
    return groups


def _measure(runs: Sequence[ReportedRun]) -> Measure:
    """The measure by which runs on one task are compared."""
    return task_measure(runs, runs[0].task)


def _interval(rows: Sequence[Row], measure: Measure) -> Interval:
    """The interval of rows at one step and budget, one row for each seed."""
    return score_interval([[row] for row in rows], measure)


def _ends(intervals: Sequence[Interval], measure: Measure) -> Float[np.ndarray, "3 intervals"]:
    """The means, lower and upper ends in the unit of the axis; an unknown end is NaN, which is not drawn."""
    return measure.factor * np.array([interval[:3] for interval in intervals], float).T


def _line(axes: Any, points: Sequence[tuple[int, Interval]], label: str, measure: Measure) -> None:
    if not points:
        return
    places = np.log2([place for place, _ in points])
    mean, low, high = _ends([interval for _, interval in points], measure)
    axes.errorbar(places, mean, np.abs([mean - low, high - mean]), marker="o", capsize=3, label=label)


def _log_ticks(axes: Any, ticks: Sequence[int], *, logarithm: bool = True) -> None:
    axes.set_xticks(np.log2(ticks) if logarithm else ticks, [str(tick) for tick in ticks])
