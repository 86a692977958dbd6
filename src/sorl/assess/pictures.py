"""Pictures of an assessment: calibration, values and distances, by budget."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sorl.assess.record import Assessment
from sorl.system.pictures import legend, pyplot_without_screen, write_picture


NAMES = ("assessment-values.png", "assessment-distance.png", "assessment-calibration.png")
"""The files of the pictures, in the order of `DRAWINGS`."""


def draw_values(axes: Any, found: Assessment) -> None:
    """The fitted value of each budget with its interval, the own critic's, and the behaviour's."""
    places = np.arange(len(found.budgets))
    value, low, high = (
        np.array([getattr(one.fitted, name) for one in found.budgets]) for name in ("value", "value_low", "value_high")
    )
    axes.errorbar(places, value, [value - low, high - value], fmt="o", capsize=3, label="fitted Q evaluation")
    own = [
        (place, one.own_value) for place, one in zip(places, found.budgets, strict=True) if one.own_value is not None
    ]
    if own:
        axes.plot(*zip(*own, strict=True), "x", label="the agent's own Q")
    behaviour = found.behaviour
    axes.axhline(behaviour.fitted.value, color="0.5", label="behaviour, fitted")
    axes.axhline(behaviour.returned, color="0.5", linestyle=":", label="behaviour, returned")
    _budgets(axes, found)
    axes.set(ylabel="discounted return", title="value at first states")
    legend(axes, fontsize=7)


def draw_distances(axes: Any, found: Assessment) -> None:
    """Distance to logged actions in near states, and jerk, as multiples of those of the logs."""
    places, behaviour = np.arange(len(found.budgets)), found.behaviour
    for dimension, logged in enumerate(behaviour.neighbour_distance):
        if logged > 0:
            ratios = [one.neighbour_distance[dimension] / logged for one in found.budgets]
            axes.plot(places, ratios, ".", color="C0", label="to neighbours, each dimension" if not dimension else None)
    if behaviour.jerk > 0:
        axes.plot(places, [one.jerk / behaviour.jerk for one in found.budgets], "_", color="C1", label="jerk")
    axes.axhline(1, color="0.5", linestyle=":")
    _budgets(axes, found)
    axes.set(ylabel="multiple of the logs'", title="distance to the data", ylim=(0, None))
    legend(axes, fontsize=7)


def draw_calibration(axes: Any, found: Assessment) -> None:
    """Mean returns of held-out states with like values, for each critic; the line is perfect calibration."""
    ends = [value for one in found.calibrations for each in one.bins for value in (each.predicted, each.returned)]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color="0.7", linewidth=1)
    for one in found.calibrations:
        style = "x--" if one.critic.startswith("own") else "o-"
        axes.plot(
            [each.predicted for each in one.bins],
            [each.returned for each in one.bins],
            style,
            markersize=3,
            linewidth=1,
            label=one.critic,
        )
    axes.set(xlabel="value of the logged action", ylabel="discounted return", title="calibration")
    legend(axes, fontsize=7)


DRAWINGS: tuple[Callable[[Any, Assessment], None], ...] = (draw_values, draw_distances, draw_calibration)


def save_pictures(directory: Path, found: Assessment) -> list[Path]:
    """Writes each picture to `directory`, and **returns** the files; needs matplotlib (`ImportError`)."""
    pyplot = pyplot_without_screen()
    paths = []
    for name, draw in zip(NAMES, DRAWINGS, strict=True):
        figure, axes = pyplot.subplots(figsize=(5, 3.6), layout="constrained")
        draw(axes, found)
        write_picture(figure, directory / name)
        paths.append(directory / name)
    return paths


def _budgets(axes: Any, found: Assessment) -> None:
    axes.set_xticks(range(len(found.budgets)), [one.budget.name for one in found.budgets], fontsize=8)
