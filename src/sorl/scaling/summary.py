"""Summary of a grid of compute budgets: a row for each pair, pairs that hurt, the best pair, and the table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sorl.scaling.grid import Record
from sorl.statistics.intervals import paired_difference
from sorl.statistics.measures import SUCCESS, Measure, measure_of
from sorl.statistics.rows import BUDGET_FIELDS
from sorl.statistics.tables import score_interval


Pair = dict[str, Any]
"""The results of a pair of inference steps and candidates:

- the fields of its `Budget`, the number of `seeds`, and the number of `episodes` of each seed;
- `success` in [0, 1], `success_low`, `success_high`, and the kind of `interval` (see
  `sorl.statistics.intervals.Interval`); if the environment reports no success, these are None, the measure is the
  return, and its interval is `return_low` to `return_high`;
- `difference`, that of the measure to the first pair of the grid on the same episodes, with its interval;
- `gain`, the difference of the measure to one candidate at the same number of steps, with its interval; None if the
  pair itself has one candidate, or if that pair is not in the grid;
- `return` and `length`, means over episodes, and `steps_per_second`, environment steps per second while playing;
- `latency_ms` and `latency_p95_ms` of a decision for one observation; `batch_latency_ms` and `batch_latency_p95_ms` of
  a decision for `batch_size` observations, and `candidates_per_second` in it;
- `remark`, a note if the interval, of `FEWEST_EPISODES` or more, shows that the pair hurts, else the empty string.
"""

CANDIDATES_HURT = "best of N hurts here"
STEPS_HURT = "more steps hurt here"

FEWEST_EPISODES = 6
"""With fewer episodes no pair is said to hurt, even if all of them agree: five do so by chance in one case of 16."""


def summarise_grid(records: Sequence[Record]) -> list[Pair]:
    """One row for each finished pair, in order; the first pair is the reference."""
    measure = measure_of([row for record in records for row in record["rows"]])
    key = "success" if measure == SUCCESS else "returns"
    scores = [np.array([row["outcomes"][key] for row in record["rows"]]) for record in records]
    places = {sizes(record["rows"][0]): place for place, record in enumerate(records)}
    pairs = []
    for place, record in enumerate(records):
        difference = paired_difference(scores[place], scores[0])._asdict()
        steps, candidates = sizes(record["rows"][0])
        alone = places.get((steps, 1)) if candidates > 1 else None
        gain: dict[str, Any] = dict.fromkeys(("gain", "gain_low", "gain_high"))
        if alone is not None:
            gain = dict(zip(gain, paired_difference(scores[place], scores[alone]), strict=True))
        pair = _figures(record["rows"], measure) | difference | gain | _latency(record["latency"], candidates)
        pairs.append(pair | {"remark": _remark(pair)})
    return pairs


def sizes(pair: Pair) -> tuple[int, int]:
    """The inference steps and candidates of a pair."""
    return pair["inference_steps"], pair["candidates"]


def measure_of_pairs(pairs: Sequence[Pair]) -> Measure:
    """The measure by which pairs are compared: success if all have one, else the return."""
    return measure_of(pairs, "success")


def best_pair(pairs: Sequence[Pair]) -> Pair:
    """The pair with the highest measure of those that are not worse than the reference; of equal ones, the fastest."""
    name = measure_of_pairs(pairs).name
    harmless = [pair for pair in pairs if pair["difference"] >= 0]
    return min(harmless, key=lambda pair: (-pair[name], pair["latency_p95_ms"]))


def pareto_front(pairs: Sequence[Pair]) -> list[Pair]:
    """The Pareto front of the measure and median latency, fastest first; of pairs with equal figures, one is kept."""
    name, front = measure_of_pairs(pairs).name, list[Pair]()
    for pair in sorted(pairs, key=lambda pair: (pair["latency_ms"], -pair[name])):
        if not front or pair[name] > front[-1][name]:
            front.append(pair)
    return front


def grid_table(pairs: Sequence[Pair]) -> str:
    """The table of pairs as text, with a sentence for each pair that hurts."""
    steps, candidates = sizes(pairs[0])
    batch, measure = pairs[0]["batch_size"], measure_of_pairs(pairs)
    title = " success   95 % interval" if measure == SUCCESS else "                return, 95 % interval"
    lines = [
        f" M^inf    N {title}   against ({steps}, {candidates})            return   length"
        f"   ms, p95 (1)      ms, p95 ({batch})  candidates/s"
    ]
    for pair in pairs:
        score = measure.text(pair[measure.name])
        ends = measure.range(pair[f"{measure.name}_low"], pair[f"{measure.name}_high"])
        score = f"{score:>7}  {ends}" if measure == SUCCESS else f"{score:>10}  {ends:>25}"
        lines.append(
            f"{pair['inference_steps']:6d} {pair['candidates']:4d}  {score}  {_difference(pair, 'difference'):24s}"
            f"{pair['return']:8.1f} {pair['length']:8.1f}  {pair['latency_ms']:6.2f}, {pair['latency_p95_ms']:6.2f}"
            f"  {pair['batch_latency_ms']:7.2f}, {pair['batch_latency_p95_ms']:7.2f}"
            f"  {pair['candidates_per_second']:12.0f}"
        )
    return "\n".join([*lines, *(_sentence(pair, pairs[0]) for pair in pairs if pair["remark"])])


def _figures(rows: Sequence[dict[str, Any]], measure: Measure) -> Pair:
    budget = {field: rows[0][field] for field in BUDGET_FIELDS}
    counts = {"seeds": len(rows), "episodes": int(rows[0]["episodes"])}
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("return", "length", "steps_per_second")}
    score = score_interval([[row] for row in rows], measure).fields(measure)
    return budget | counts | score | means | score


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
    if pair["seeds"] * pair["episodes"] < FEWEST_EPISODES:
        return ""
    worse = pair["difference_high"] < 0
    if pair["candidates"] > 1 and (worse if pair["gain"] is None else pair["gain_high"] < 0):
        return CANDIDATES_HURT
    return STEPS_HURT if worse else ""


def _sentence(pair: Pair, reference: Pair) -> str:
    against = f"{_difference(pair, 'difference')} against {sizes(reference)}"
    alone = pair["inference_steps"], 1
    if pair["gain"] is not None and alone != sizes(reference):
        against += f", {_difference(pair, 'gain')} against {alone}"
    return f"{sizes(pair)}: {pair['remark']} ({against})."


def _difference(pair: Pair, name: str) -> str:
    form = "+.3f" if pair["success"] is not None else "+.4g"
    return f"{pair[name]:{form}} ({pair[f'{name}_low']:{form}} .. {pair[f'{name}_high']:{form}})"
