"""Summary of a data set: numbers for the run's record, and lines that are printed before training starts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from sorl.data.columns import Columns


NEARLY_CONSTANT = 1e-4
"""A column is nearly constant if its deviation is below this share of its magnitude or of the median deviation."""
UNUSUAL_SCALE = 1e6
"""The summary names columns whose deviation is above this, or below its inverse."""
WIDTH = 100
"""The most characters in a line of `text`."""


def summarise(
    observations: Columns,
    actions: Columns,
    rewards: Float[np.ndarray, " rows"],
    ends: Bool[np.ndarray, " rows"],
    terminated: Bool[np.ndarray, " rows"],
    *,
    transitions: int,
    validation: Mapping[str, int] | None = None,
    unused_keys: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """A summary of the rows used for training, ready for JSON.

    **Arguments:** `observations` and `actions`, the statistics of their columns; `rewards`, `ends` and `terminated` of
    each row; `transitions`, the number of steps with a known next state; `validation`, the `episodes` and `transitions`
    held out; `unused_keys`, those of the file; `notes`, sentences about what was corrected.

    **Returns:** counts (`episodes`; `terminations`, rows whose value includes no next state's value; `cuts`, episodes
    that do not end with a termination; `rows`; `transitions`), `length_*`, `reward_*` and `return_*` (undiscounted sums
    over episodes), the column names under `constant`, `nearly_constant` and `unusual_scale`, the ranges under
    `actions`, and `unused_keys`, `notes` and `validation` as given.
    """
    # Episodes are contiguous rows, from one start to the next.
    starts = np.concatenate([[0], np.flatnonzero(ends)[:-1] + 1])
    lengths = np.diff(np.append(starts, len(ends)))
    values = rewards.astype(np.float64)
    both = (("observations", observations), ("actions", actions))
    return {
        "episodes": len(lengths),
        "terminations": int(terminated.sum()),
        "cuts": int((ends & ~terminated).sum()),
        "rows": len(ends),
        "transitions": int(transitions),
        **_spread("length", lengths, np.median),
        **_spread("reward", values, np.mean),
        **_spread("return", np.add.reduceat(values, starts), np.mean),
        "observation_size": len(observations.low),
        "action_size": len(actions.low),
        "actions": [[float(low), float(high)] for low, high in zip(actions.low, actions.high, strict=True)],
        "constant": [name for key, found in both for name in _names(key, found.constant)],
        "nearly_constant": [name for key, found in both for name in _names(key, _nearly_constant(found))],
        "unusual_scale": {
            name: float(found.deviation[index])
            for key, found in both
            for index, name in zip(np.flatnonzero(_unusual(found)), _names(key, _unusual(found)), strict=True)
        },
        "unused_keys": list(unused_keys),
        "notes": list(notes),
        "validation": None if validation is None else dict(validation),
    }


def text(summary: Mapping[str, Any]) -> str:
    """The summary in at most twelve lines of `WIDTH` characters, without the notes, which are printed as warnings."""
    lines = [
        ("episodes", f"{summary['episodes']:,}: {_endings(summary)}; {summary['transitions']:,} transitions"),
        (
            "length",
            f"{summary['length_min']:,} to {summary['length_max']:,}, median {summary['length_median']:g} steps",
        ),
        ("rewards", _three(summary, "reward")),
        ("returns", f"{_three(summary, 'return')} per episode"),
        ("actions", ", ".join(f"{low:.4g}..{high:.4g}" for low, high in summary["actions"])),
    ]
    scales = [f"{name} ({deviation:.1g})" for name, deviation in summary["unusual_scale"].items()]
    named = [
        ("constant", summary["constant"]),
        ("nearly so", summary["nearly_constant"]),
        ("deviation", scales),
        ("not used", summary["unused_keys"]),
    ]
    lines += [(title, ", ".join(names)) for title, names in named if names]
    held_out = summary["validation"]
    if held_out is None:
        lines.append(("held out", "nothing"))
    else:
        plural = "s" * (held_out["episodes"] != 1)
        lines.append(("held out", f"{held_out['episodes']:,} episode{plural}, {held_out['transitions']:,} transitions"))
    return "\n".join(["Data to train on:", *(_line(title, words) for title, words in lines)])


def _spread(name: str, values: Shaped[np.ndarray, " values"], middle: Any) -> dict[str, Any]:
    middle_name = "median" if middle is np.median else "mean"
    kind = int if values.dtype.kind == "i" else float
    return {
        f"{name}_min": kind(values.min()),
        f"{name}_{middle_name}": float(middle(values)),
        f"{name}_max": kind(values.max()),
    }


def _nearly_constant(found: Columns) -> Bool[np.ndarray, " columns"]:
    varying = found.deviation[~found.constant]
    magnitude = np.maximum(np.abs(found.low), np.abs(found.high))
    usual = float(np.median(varying)) if len(varying) > 2 else 0.0
    return ~found.constant & (found.deviation < NEARLY_CONSTANT * np.maximum(magnitude, usual))


def _unusual(found: Columns) -> Bool[np.ndarray, " columns"]:
    return ~found.constant & ((found.deviation > UNUSUAL_SCALE) | (found.deviation < 1 / UNUSUAL_SCALE))


def _names(key: str, chosen: Bool[np.ndarray, " columns"]) -> list[str]:
    return [f"{key}[{index}]" for index in np.flatnonzero(chosen)]


def _endings(summary: Mapping[str, Any]) -> str:
    ended = summary["episodes"] - summary["cuts"]
    words = f"{ended:,} ended, {summary['cuts']:,} cut"
    if summary["terminations"] > ended:  # OGBench's trajectories go on after a task is solved
        words += f", {summary['terminations']:,} rows solve the task"
    return words


def _three(summary: Mapping[str, Any], name: str) -> str:
    return f"{summary[f'{name}_min']:.4g} to {summary[f'{name}_max']:.4g}, mean {summary[f'{name}_mean']:.4g}"


def _line(title: str, words: str) -> str:
    line = f"  {title:<10} {words}"
    if len(line) <= WIDTH:
        return line
    end = line.rfind(", ", 0, WIDTH - 4)
    return f"{line[:end]}, .." if end > 0 else f"{line[: WIDTH - 3]} .."
