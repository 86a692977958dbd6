"""Summary of a data set: numbers for the run's record, and lines that are printed before training starts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sorl.data.columns import BLOCK_VALUES, Columns
from sorl.data.paging import release


NEARLY_CONSTANT = 1e-4
"""A column is nearly constant if its deviation is below this share of its magnitude or of the median deviation."""
UNUSUAL_SCALE = 1e6
"""The summary names columns whose deviation is above this, or below its inverse."""
WIDTH = 100
"""The most characters in a line of `text`."""


def summarise(
    observations: Columns,
    actions: Columns,
    rewards: Shaped[np.ndarray, " rows"],
    ends: Bool[np.ndarray, " rows"],
    terminated: Bool[np.ndarray, " rows"],
    *,
    transitions: int,
    chosen: Bool[np.ndarray, " rows"] | None = None,
    validation: Mapping[str, int] | None = None,
    unused_keys: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """A summary of the rows used for training, ready for JSON; computed from one block of trajectories at a time.

    **Arguments:** `observations` and `actions`, the statistics of their columns; `rewards`, `ends` and `terminated` of
    each row; `transitions`, the number of steps with a known next state; `chosen`, the rows of the trajectories to
    summarise (None: all); `validation`, the `episodes` and `transitions` held out; `unused_keys`, those of the file;
    `notes`, sentences about what was corrected.

    **Returns:** counts (`episodes`; `terminations`, rows whose value includes no next state's value; `cuts`, episodes
    that do not end with a termination; `rows`; `transitions`), `length_*`, `reward_*` and `return_*` (undiscounted sums
    over episodes), the column names under `constant`, `nearly_constant` and `unusual_scale`, the ranges under
    `actions`, and `unused_keys`, `notes` and `validation` as given.
    """
    # Episodes are contiguous rows, from one start to the next.
    last = np.flatnonzero(ends)
    picked = np.ones(len(last), np.bool_) if chosen is None else chosen[last]
    lengths = np.diff(last, prepend=-1)
    totals = _totals(rewards, terminated, lengths, picked)
    count, ended = int(lengths[picked].sum()), int(terminated[last][picked].sum())
    both = (("observations", observations), ("actions", actions))
    return {
        "episodes": int(picked.sum()),
        "terminations": totals.terminations,
        "cuts": int(picked.sum()) - ended,
        "rows": count,
        "transitions": int(transitions),
        **_spread("length", lengths[picked], np.median),
        "reward_min": totals.low,
        "reward_mean": totals.sum / count,
        "reward_max": totals.high,
        **_spread("return", totals.returns[picked], np.mean),
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


class _Totals(NamedTuple):
    """Numbers of the rewards of trajectories."""

    low: float
    high: float
    sum: float
    returns: Float[np.ndarray, " trajectories"]
    """The sum of each trajectory, chosen or not."""
    terminations: int


def _totals(
    rewards: Shaped[np.ndarray, " rows"],
    terminated: Bool[np.ndarray, " rows"],
    lengths: Int[np.ndarray, " trajectories"],
    picked: Bool[np.ndarray, " trajectories"],
) -> _Totals:
    """The numbers of the picked trajectories, in double precision; reads one block of whole trajectories at a time."""
    starts = np.cumsum(lengths) - lengths
    low, high, total, terminations, returns = np.inf, -np.inf, 0.0, 0, np.zeros(len(lengths))
    first = 0
    while first < len(lengths):
        behind = max(first + 1, int(np.searchsorted(starts, starts[first] + BLOCK_VALUES)))
        rows = slice(int(starts[first]), int(starts[behind - 1] + lengths[behind - 1]))
        values = rewards[rows].astype(np.float64)
        returns[first:behind] = np.add.reduceat(values, starts[first:behind] - rows.start)
        inside = np.repeat(picked[first:behind], lengths[first:behind])
        terminations += int((terminated[rows] & inside).sum())
        values = values[inside]
        if len(values):
            low, high, total = min(low, values.min()), max(high, values.max()), total + values.sum()
        release(rewards, terminated)
        first = behind
    return _Totals(float(low), float(high), float(total), returns, terminations)


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
    kind = int if values.dtype.kind == "i" else float
    return {
        f"{name}_min": kind(values.min()),
        f"{name}_{middle.__name__}": float(middle(values)),
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
    if summary["terminations"] > ended:  # OGBench's trajectories continue after a task is solved
        words += f", {summary['terminations']:,} rows terminate, some within an episode"
    return words


def _three(summary: Mapping[str, Any], name: str) -> str:
    return f"{summary[f'{name}_min']:.4g} to {summary[f'{name}_max']:.4g}, mean {summary[f'{name}_mean']:.4g}"


def _line(title: str, words: str) -> str:
    line = f"  {title:<10} {words}"
    if len(line) <= WIDTH:
        return line
    end = line.rfind(", ", 0, WIDTH - 4)
    return f"{line[:end]}, .." if end > 0 else f"{line[: WIDTH - 3]} .."
