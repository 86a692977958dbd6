"""The data report as text for the terminal."""

from collections.abc import Sequence
from typing import Any


MOST_DIMENSIONS = 40
"""The most dimensions that the terminal's tables list; JSON and the page have all."""
DIMENSIONS = ("dimension", "low", "high", "mean", "deviation", "at limits", "smooth", "noise", "remark")


def text(facts: dict[str, Any]) -> str:
    """The whole report."""
    parts = [f"{facts['path']} ({facts['form']})", *(_line(title, words) for title, words in overview(facts))]
    for kind in ("observations", "actions"):
        rows = dimension_rows(facts[kind])
        parts += ["", kind.capitalize(), *_aligned(DIMENSIONS, rows[:MOST_DIMENSIONS])]
        if len(rows) > MOST_DIMENSIONS:
            parts.append(f"  .. and {len(rows) - MOST_DIMENSIONS} more (--json, --html)")
    sentences = [*facts["notes"], *facts["warnings"]]
    parts += ["", f"Warnings: {len(sentences) or 'none'}", *(f"  - {sentence}" for sentence in sentences)]
    return "\n".join(parts)


def overview(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The counts and the figures of rewards, by title."""
    counts, rewards, split, near = (facts[key] for key in ("counts", "rewards", "split", "coverage"))
    cut = counts["episodes"] - counts["terminated"]
    lines = [
        (
            "episodes",
            f"{counts['episodes']:,}: {counts['terminated']:,} terminated, {cut:,} cut; {counts['steps']:,} steps, "
            f"{counts['transitions']:,} transitions",
        ),
        ("length", f"{counts['length_min']:,} to {counts['length_max']:,} steps, median {counts['length_median']:g}"),
        (
            "rewards",
            f"{rewards['min']:.4g} to {rewards['max']:.4g}, mean {rewards['mean']:.4g}; "
            f"{rewards['rewarded_share']:.2%} of the steps are not 0",
        ),
        ("returns", f"{rewards['return_min']:.4g} to {rewards['return_max']:.4g}, mean {rewards['return_mean']:.4g}"),
        (
            "values",
            f"expect |Q| up to {rewards['value_observed']:.4g} (limit {rewards['value_limit']:.4g}) with discount "
            f"{rewards['discount']:g}",
        ),
    ]
    if counts["terminated_inside"]:
        steps, places = counts["terminated_inside"], counts["places_inside"]
        lines.append(("goals", f"{steps:,} steps in {places:,} places terminate inside an episode"))
    if "normalised_return_mean" in rewards:
        mean, most = rewards["normalised_return_mean"], rewards["normalised_return_max"]
        lines.append(("normalised", f"returns in reference scores: mean {100 * mean:.1f}, best {100 * most:.1f} (%)"))
    if facts["frame_rate"] or facts["times"]:
        rate = f"{facts['frame_rate']:g} a second" if facts["frame_rate"] else ""
        gap = f"steps {facts['times']['usual']:.4g} s apart" if facts["times"] else ""
        lines.append(("time", "; ".join(filter(None, (rate, gap)))))
    duplicates = f"{counts['duplicate_steps']:,} steps, {counts['duplicate_episodes']:,} whole episodes"
    lines.append(("duplicates", duplicates))
    if near is not None:
        words = (
            f"nearest state of another episode {near['distance_median']:.2g} deviations away (90 %: "
            f"{near['distance_90']:.2g}), its action {near['action_difference']:.2g}; {near['asked']:,} of "
            f"{near['searched']:,} sampled steps"
        )
        lines.append(("coverage", words))
    held = split["validation"]
    if held["episodes"]:
        plural = "s" * (held["episodes"] != 1)
        words = f"{held['episodes']:,} episode{plural}, {held['steps']:,} steps, mean return {held['return_mean']:.4g}"
        if near is not None and near["validation"] is not None:
            words += f"; nearest training state {near['validation']:.2g} deviations away"
        lines.append(("validation", words))
    if facts["left_out"]:
        lines.append(("left out", ", ".join(facts["left_out"])))
    if facts["environment"]:
        lines.append(("environment", facts["environment"]))
    return lines


def dimension_rows(dimensions: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row of `DIMENSIONS` for each dimension."""
    return [
        [
            one["name"],
            *(f"{one[key]:.4g}" for key in ("low", "high", "mean", "deviation")),
            f"{min(1.0, one['at_low'] + one['at_high']):.1%}",
            f"{one['smoothness']:.2f}",
            f"{one['noise']:.2g}",
            _remark(one),
        ]
        for one in dimensions
    ]


def _remark(one: dict[str, Any]) -> str:
    if one["constant"]:
        return "constant"
    remarks = [word for key, word in (("nearly_constant", "nearly constant"), ("unusual_scale", "scale")) if one[key]]
    return ", ".join([*remarks, *([f"angle in {one['angle']}, wraps"] if one["angle"] else [])])


def _line(title: str, words: str) -> str:
    return f"  {title:<12}{words}"


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    last = len(head) - 1

    def cell(value: str, column: int) -> str:
        return value.ljust(widths[column]) if column in (0, last) else value.rjust(widths[column])

    return ["  " + "  ".join(cell(value, column) for column, value in enumerate(row)).rstrip() for row in [head, *rows]]
