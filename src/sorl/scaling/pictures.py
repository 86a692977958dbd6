"""Pictures of a grid of compute budgets: success against steps, against candidates, and against latency."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sorl.scaling.summary import Pair, best_pair, pareto_front, sizes
from sorl.system.pictures import plain, write_picture


def draw_success_against_steps(axes: Any, pairs: Sequence[Pair]) -> None:
    """One line for each number of candidates, with its 95 % interval as a band."""
    _draw_lines(axes, pairs, along="inference_steps", line="candidates", label=_candidates_label)
    axes.set(xlabel="inference steps $M^{inf}$", title="more steps")


def draw_success_against_candidates(axes: Any, pairs: Sequence[Pair]) -> None:
    """One line for each number of inference steps, with its 95 % interval as a band."""
    _draw_lines(axes, pairs, along="candidates", line="inference_steps", label=_steps_label)
    axes.set(xlabel="candidates $N$", title="best of more")


def draw_pareto_front(axes: Any, pairs: Sequence[Pair]) -> None:
    """Every pair as a point with its 95 % interval; those that none beats joined by a line, the best under a star."""
    from matplotlib import ticker

    milliseconds, success, low, high = _columns(pairs, "latency_ms", "success", "success_low", "success_high")
    bars = 100 * np.abs([success - low, high - success])
    axes.errorbar(milliseconds, 100 * success, bars, fmt="o", color="0.6", elinewidth=0.8, markersize=4)
    front = pareto_front(pairs)
    fastest, highest = _columns(front, "latency_ms", "success")
    axes.plot(fastest, 100 * highest, "o-", zorder=3, label="none is faster and better")
    best = best_pair(pairs)
    star: dict[str, Any] = {"markersize": 16, "color": "C3", "label": f"chosen: {sizes(best)}"}
    axes.plot(best["latency_ms"], 100 * best["success"], "*", **star)
    for pair in front:
        axes.annotate(
            f"{sizes(pair)}",
            (pair["latency_ms"], 100 * pair["success"]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set(xscale="log", xlabel="decision for one observation (ms, median)", title="(steps, candidates)")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    _finish(axes)


def save_pictures(pairs: Sequence[Pair], title: str, directory: Path) -> list[Path]:
    """Writes `scaling.png` and `pareto.png`; raises an `ImportError` where matplotlib is missing."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    paths = []
    for name, drawings in (
        ("scaling.png", (draw_success_against_steps, draw_success_against_candidates)),
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
    lines: dict[int, list[Pair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair[along]):
        lines[pair[line]].append(pair)
    for value, own in sorted(lines.items()):
        places, success, low, high = _columns(own, along, "success", "success_low", "success_high")
        (drawn,) = axes.plot(np.log2(places), 100 * success, marker="o", markersize=4, label=label(value))
        axes.fill_between(np.log2(places), 100 * low, 100 * high, color=drawn.get_color(), alpha=0.12, linewidth=0)
    ticks = sorted({pair[along] for pair in pairs})
    axes.set_xticks(np.log2(ticks), [str(tick) for tick in ticks])
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.set(ylabel="success (%)", ylim=(-3, 103))
    axes.legend(frameon=False, fontsize=8)


def _columns(pairs: Sequence[Pair], *names: str) -> np.ndarray:
    return np.array([[pair[name] for pair in pairs] for name in names], float)


def _candidates_label(candidates: int) -> str:
    return "one sample" if candidates == 1 else f"best of {candidates}"


def _steps_label(steps: int) -> str:
    return "one step" if steps == 1 else f"{steps} steps"
