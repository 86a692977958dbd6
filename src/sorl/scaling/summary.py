"""What a grid of compute budgets says: one row for each pair, which pairs hurt, which to choose, and the table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sorl.scaling.grid import Record
from sorl.statistics.intervals import BUDGET_FIELDS, paired_difference, success_interval


Pair = dict[str, Any]
"""What was found at a pair of inference steps and candidates:

- the fields of its `Budget`; the number of `seeds`, and of `episodes` of each;
- `success` in [0, 1], `success_low` and `success_high`, and which `interval` that is (see `sorl.statistics.Interval`);
- `difference` of success to the first pair of the grid, on the same episodes, with its ends;
- `gain` of success by the candidates: its difference to one candidate at as many steps, with its ends; None where that
  is the pair itself, or not in the grid;
- `return` and `length` of an episode, means; environment steps per second while playing (`steps_per_second`);
- `latency_ms` and `latency_p95_ms` of a decision for one observation; `batch_latency_ms` and `batch_latency_p95_ms` of
  one for `batch_size` observations, and the `candidates_per_second` made and judged in it;
- a `remark` where the pair hurts, else the empty string.
"""

CANDIDATES_HURT = "best of N hurts here: Q over-estimates"
STEPS_HURT = "more steps hurt here"


def summarise_grid(records: Sequence[Record]) -> list[Pair]:
    """One row for each finished pair, in their order; the first is what the others are compared with."""
    success = [np.array([row["outcomes"]["success"] for row in record["rows"]]) for record in records]
    places = {sizes(record["rows"][0]): place for place, record in enumerate(records)}
    pairs = []
    for place, record in enumerate(records):
        difference = paired_difference(success[place], success[0])._asdict()
        steps, candidates = sizes(record["rows"][0])
        alone = places.get((steps, 1)) if candidates > 1 else None
        gain: dict[str, Any] = dict.fromkeys(("gain", "gain_low", "gain_high"))
        if alone is not None:
            gain = dict(zip(gain, paired_difference(success[place], success[alone]), strict=True))
        pair = _figures(record["rows"]) | difference | gain | _latency(record["latency"], candidates)
        pairs.append(pair | {"remark": _remark(pair)})
    return pairs


def sizes(pair: Pair) -> tuple[int, int]:
    """Inference steps and candidates."""
    return pair["inference_steps"], pair["candidates"]


def best_pair(pairs: Sequence[Pair]) -> Pair:
    """The pair with the highest success among those that do no worse than the reference; of equals the fastest."""
    harmless = [pair for pair in pairs if pair["difference"] >= 0]
    return min(harmless, key=lambda pair: (-pair["success"], pair["latency_p95_ms"]))


def pareto_front(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that no other equals in success and beats in median latency, or the reverse; fastest first."""
    front: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: (pair["latency_ms"], -pair["success"])):
        if not front or pair["success"] > front[-1]["success"]:
            front.append(pair)
    return front


def grid_table(pairs: Sequence[Pair]) -> str:
    """The pairs as lines of text, and a sentence for each that hurts."""
    steps, candidates = sizes(pairs[0])
    batch = pairs[0]["batch_size"]
    lines = [
        f" M^inf    N  success   95 % interval   against ({steps}, {candidates})            return   length"
        f"   ms, p95 (1)      ms, p95 ({batch})  candidates/s"
    ]
    for pair in pairs:
        lines.append(
            f"{pair['inference_steps']:6d} {pair['candidates']:4d}  {pair['success']:7.3f}  "
            f"{pair['success_low']:5.3f} .. {pair['success_high']:5.3f}  {_difference(pair, 'difference'):24s}"
            f"{pair['return']:8.1f} {pair['length']:8.1f}  {pair['latency_ms']:6.2f}, {pair['latency_p95_ms']:6.2f}"
            f"  {pair['batch_latency_ms']:7.2f}, {pair['batch_latency_p95_ms']:7.2f}"
            f"  {pair['candidates_per_second']:12.0f}"
        )
    return "\n".join([*lines, *(_sentence(pair, pairs[0]) for pair in pairs if pair["remark"])])


def _figures(rows: Sequence[dict[str, Any]]) -> Pair:
    successes, episodes = (np.array([row[name] for row in rows]) for name in ("successes", "episodes"))
    budget = {field: rows[0][field] for field in BUDGET_FIELDS}
    counts = {"seeds": len(rows), "episodes": int(episodes[0])}
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("return", "length", "steps_per_second")}
    return budget | counts | success_interval(successes, episodes)._asdict() | means


def _latency(timings: Sequence[dict[str, Any]], candidates: int) -> Pair:
    one, batch = timings[0], timings[-1]
    return {
        "latency_ms": one["median_ms"],
        "latency_p95_ms": one["p95_ms"],
        "batch_size": batch["batch_size"],
        "batch_latency_ms": batch["median_ms"],
        "batch_latency_p95_ms": batch["p95_ms"],
        "candidates_per_second": 1000 * batch["batch_size"] * candidates / batch["median_ms"],
    }


def _remark(pair: Pair) -> str:
    worse = pair["difference"] < 0
    if pair["candidates"] > 1 and (worse if pair["gain"] is None else pair["gain"] < 0):
        return CANDIDATES_HURT
    return STEPS_HURT if worse else ""


def _sentence(pair: Pair, reference: Pair) -> str:
    against = f"{_difference(pair, 'difference')} against {sizes(reference)}"
    alone = pair["inference_steps"], 1
    if pair["gain"] is not None and alone != sizes(reference):
        against += f", {_difference(pair, 'gain')} against {alone}"
    return f"{sizes(pair)}: {pair['remark']} ({against})."


def _difference(pair: Pair, name: str) -> str:
    return f"{pair[name]:+.3f} ({pair[f'{name}_low']:+.3f} .. {pair[f'{name}_high']:+.3f})"
