"""Pictures of a grid of compute budgets: success (or return) against steps, against candidates and against latency."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sorl.scaling.summary import Pair, best_pair, measure_of_pairs, pareto_front, sizes
from sorl.statistics.measures import Measure
from sorl.system.pictures import legend, plain, pyplot_without_screen, write_picture


def draw_score_against_steps(axes: Any, pairs: Sequence[Pair]) -> None:
    """Score against inference steps: a line for each number of candidates, with 95 % intervals as bands."""
    _draw_lines(axes, pairs, along="inference_steps", line="candidates", label=_candidates_label)
    axes.set(xlabel="inference steps $M^{inf}$", title="more steps")


def draw_score_against_candidates(axes: Any, pairs: Sequence[Pair]) -> None:
    """Score against candidates: a line for each number of inference steps, with 95 % intervals as bands."""
    _draw_lines(axes, pairs, along="candidates", line="inference_steps", label=_steps_label)
    axes.set(xlabel="candidates $N$", title="best of more")


def draw_pareto_front(axes: Any, pairs: Sequence[Pair]) -> None:
    """Score against latency: a point with its 95 % interval for each pair, the Pareto front, and the best pair."""
    from matplotlib import ticker

    # All pairs in grey, the front as a line on top of them, and a star for the best pair.
    measure = measure_of_pairs(pairs)
    score, low, high = _scores(pairs, measure)
    (milliseconds,) = _columns(pairs, "latency_ms")
    bars = np.abs([score - low, high - score])
    axes.errorbar(milliseconds, score, bars, fmt="o", color="0.6", elinewidth=0.8, markersize=4)
    front = pareto_front(pairs)
    axes.plot(
        *_columns(front, "latency_ms"), _scores(front, measure)[0], "o-", zorder=3, label="none is faster and better"
    )
    best = best_pair(pairs)
    star: dict[str, Any] = {"markersize": 16, "color": "C3", "label": f"chosen: {sizes(best)}"}
    axes.plot(best["latency_ms"], measure.factor * best[measure.name], "*", **star)
    for pair in front:
        axes.annotate(
            str(sizes(pair)),
            (pair["latency_ms"], measure.factor * pair[measure.name]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set(xscale="log", xlabel="decision for one observation (ms, median)", title="(steps, candidates)")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    _finish(axes, measure)


def save_pictures(pairs: Sequence[Pair], title: str, directory: Path) -> list[Path]:
    """Writes `scaling.png` and `pareto.png`; raises an `ImportError` if matplotlib is missing."""
    pyplot = pyplot_without_screen()
    paths = []
    for name, drawings in (
        ("scaling.png", (draw_score_against_steps, draw_score_against_candidates)),
        ("pareto.png", (draw_pareto_front,)),
    ):
        figure, axes = pyplot.subplots(1, len(drawings), figsize=(4.5 * len(drawings) + 1, 3.8), layout="constrained")
        for draw, one in zip(drawings, np.atleast_1d(axes), strict=True):
            draw(one, pairs)
        figure.suptitle(plain(title), fontsize=8)
        write_picture(figure, directory / name)
        paths.append(directory / name)
    return paths


def _draw_lines(axes: Any, pairs: Sequence[Pair], *, along: str, line: str, label: Callable[[int], str]) -> None:
    measure, lines = measure_of_pairs(pairs), defaultdict[int, list[Pair]](list)
    for pair in sorted(pairs, key=lambda pair: pair[along]):
        lines[pair[line]].append(pair)
    for value, own in sorted(lines.items()):
        (places,) = _columns(own, along)
        score, low, high = _scores(own, measure)
        (drawn,) = axes.plot(np.log2(places), score, marker="o", markersize=4, label=label(value))
        axes.fill_between(np.log2(places), low, high, color=drawn.get_color(), alpha=0.12, linewidth=0)
    ticks = sorted({pair[along] for pair in pairs})
    axes.set_xticks(np.log2(ticks), [str(tick) for tick in ticks])
    _finish(axes, measure)


def _finish(axes: Any, measure: Measure) -> None:
    axes.set(**measure.axis)
    legend(axes, fontsize=8)


def _columns(pairs: Sequence[Pair], *names: str) -> np.ndarray:
    return np.array([[pair[name] for pair in pairs] for name in names], float)


def _scores(pairs: Sequence[Pair], measure: Measure) -> np.ndarray:
    """The means and the lower and upper ends of their intervals, in the unit of the axis."""
    return measure.factor * _columns(pairs, measure.name, f"{measure.name}_low", f"{measure.name}_high")


def _candidates_label(candidates: int) -> str:
    return "one sample" if candidates == 1 else f"best of {candidates}"


def _steps_label(steps: int) -> str:
    return "one step" if steps == 1 else f"{steps} steps"
