"""Pictures of the data report: histograms of lengths, rewards, returns and of every dimension."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sorl.system.pictures import plain, pyplot_without_screen, write_picture


ACROSS = 5
"""Histograms side by side."""
MOST = 60
"""The most dimensions that are drawn."""


def overview(path: Path, facts: dict[str, Any]) -> None:
    """Writes histograms of episode lengths, rewards and returns."""
    rewards = facts["rewards"]
    wanted = [
        ("episode length (steps)", facts["lengths"]),
        ("reward", rewards["histogram"]),
        ("return", rewards["return_histogram"]),
    ]
    _write(path, wanted, width=3.6, log=True)


def dimensions(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """Writes a histogram of each dimension, from sampled steps."""
    _write(path, [(one["name"], one["histogram"]) for one in found[:MOST]], width=2.2, log=False)


def _write(path: Path, histograms: Sequence[tuple[str, dict[str, list[float]]]], *, width: float, log: bool) -> None:
    pyplot = pyplot_without_screen()
    across = min(ACROSS, len(histograms))
    down = -(-len(histograms) // across)
    size = width * across, (0.75 * width) * down
    figure, axes = pyplot.subplots(down, across, figsize=size, layout="constrained", squeeze=False)
    for place in axes.flat[len(histograms) :]:
        place.axis("off")
    for place, (title, histogram) in zip(axes.flat, histograms, strict=False):
        _draw(place, histogram, log)
        place.set_title(plain(title), fontsize=8)
    write_picture(figure, path, dpi=100)


def _draw(axes: Any, histogram: dict[str, list[float]], log: bool) -> None:
    edges, counts = histogram["edges"], histogram["counts"]
    if len(counts) == 1:  # all values are alike
        axes.bar([0], counts, width=0.5, color="C0")
        axes.set_xticks([0], [f"{edges[0]:.4g}"], fontsize=7)
    else:
        # Values of any magnitude: the axis is a share of the range, whose ends are named.
        axes.stairs(counts, range(len(edges)), fill=True, color="C0")
        axes.set_xticks([0, len(counts)], [f"{edges[0]:.4g}", f"{edges[-1]:.4g}"], fontsize=7)
    if log:
        axes.set_yscale("log")
    axes.tick_params(axis="y", labelsize=6)
