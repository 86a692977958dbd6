"""Warnings of the data report, in words that say what to do."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np


OUTLYING = 100.0
"""A range of more deviations than this has values far outside the rest."""
JUMPING = 25.0
"""A step of more than this many usual steps, and of more than half of the range, is a jump."""
SATURATED = 0.2
"""Share of actions at a limit from which the actions count as saturated."""
LARGE_VALUE = 1_000.0
SMALL_VALUE = 0.1
OWN = ("own logs", "data directory")
"""The forms of data whose rewards are always those that they hold."""
LATE = 50
"""A gap between two steps that differs by more than this percentage from the usual one is irregular."""


def advice(facts: dict[str, Any], rounding: float) -> list[str]:
    """The warnings about the facts that `sorl.inspect.report.inspected` found, one sentence each.

    **Arguments:** `rounding`, the relative error that training allows to actions at stated limits.
    """
    every = _columns(facts), _times(facts), _ends(facts), _rewards(facts), _actions(facts, rounding), _repetition(facts)
    return [sentence for sentences in every for sentence in sentences]


def _columns(facts: dict[str, Any]) -> Iterator[str]:
    for kind in ("observations", "actions"):
        for column in facts[kind]:
            name, span = column["name"], column["high"] - column["low"]
            if column["constant"]:
                use = "it always acts as that constant" if kind == "actions" else "it is centred to 0"
                yield f"{name} never varies (it is {column['low']:.6g}); {use}, so drop the dimension if you can."
                continue
            if column["nearly_constant"]:
                yield (
                    f"{name} hardly varies (deviation {column['deviation']:.2g} around {column['mean']:.6g}); drop the "
                    "dimension, or it enters the networks as noise with deviation 1."
                )
            if column["unusual_scale"]:
                yield (
                    f"{name} has the unusual scale {column['deviation']:.2g}; it is standardised, but check its unit, "
                    "and that a policy gets it with as many digits."
                )
            if column["deviation"] > 0 and span > OUTLYING * column["deviation"]:
                yield (
                    f"{name} has values far outside the rest ({column['low']:.4g} to {column['high']:.4g}, deviation "
                    f"{column['deviation']:.2g}); repair sensor faults, or drop their episodes."
                )
            if column["angle"]:
                yield (
                    f"{name} looks like an angle in {column['angle']} that wraps ({column['wraps']:,} times); give its "
                    "sine and cosine instead."
                )
            elif column["at_low"] + column["at_high"] < 1 and column["largest_step"] > max(
                JUMPING * column["usual_step"], 0.5 * span
            ):
                yield (
                    f"{name} jumps by {column['largest_step']:.4g} in {column['largest_step_at']} (usually "
                    f"{column['usual_step']:.2g}); check for lost steps, or a reset inside an episode."
                )


def _times(facts: dict[str, Any]) -> Iterator[str]:
    times = facts["times"]
    if times is None:
        return
    if times["irregular_share"] > 0:
        yield (
            f"{times['irregular_share']:.2%} of the gaps between steps differ by more than {LATE} % from the usual "
            f"{times['usual']:.4g} s (up to {times['longest']:.4g} s); cut episodes where steps are missing, or "
            "resample."
        )
    rate = facts["frame_rate"]
    if rate and abs(times["usual"] * rate - 1) > 0.05:
        yield f"Steps are {times['usual']:.4g} s apart, but the frame rate says {1 / rate:.4g} s; correct one of them."


def _ends(facts: dict[str, Any]) -> Iterator[str]:
    counts = facts["counts"]
    dropped = counts["steps"] - counts["transitions"]
    if counts["rewarded_and_dropped"] and facts["rewards"]["rewarded_share"] < 0.5:
        yield (
            f"{counts['rewarded_and_dropped']:,} rewarded last steps cannot be trained on, because the state after "
            "them is unknown and they are no terminations; store that state, or mark the steps that end the task."
        )
    elif dropped:
        yield (
            f"{dropped:,} last steps are not trained on, because the state after them is unknown; store it if you can."
        )
    if not facts["split"]["train"]["episodes"]:
        yield "The data's own split holds out every episode, which training refuses; leave some to train on."
    elif not facts["split"]["train"]["transitions"]:
        yield (
            "No step of the episodes to train on has a known outcome, which training refuses; log longer episodes, or "
            "the state after the last step."
        )
    if counts["episodes"] == 1:
        if not facts["split"]["validation"]["episodes"]:
            yield "There is only one episode, and none of it is held out for validation losses; log more."
    elif counts["episodes"] < 10:
        yield (
            f"There are only {counts['episodes']} episodes, so that validation losses say little; log more, or give "
            "--data.validation-fraction 0."
        )
    # OGBench's episodes go on after each visit of the task's goal.
    if counts["terminated_inside"] and not facts["form"].startswith("OGBench"):
        yield (
            f"{counts['terminated_inside']:,} steps in {counts['places_inside']:,} places terminate inside an episode; "
            "no reward after them counts before them, so check that they are meant."
        )


def _rewards(facts: dict[str, Any]) -> Iterator[str]:
    rewards, counts = facts["rewards"], facts["counts"]
    discount, value, limit = rewards["discount"], rewards["value_observed"], rewards["value_limit"]
    if rewards["distinct"] == 1:
        remedy = "log others" if facts["form"] in OWN else "give others, such as --data.reward success-at-end"
        yield f"Every reward is {rewards['min']:.4g}, so that only terminations tell good from bad; {remedy}."
    scale = 10.0 ** -np.round(np.log10(max(value, 1e-300) / 10))
    if value > LARGE_VALUE or (limit > 100 * LARGE_VALUE and scale < 1):
        yield (
            f"Expect |Q| of {value:.4g} (at most {limit:.4g}) with --agent.discount {discount:g}; give "
            f"--data.reward-scale {scale:g}, so that critics need not learn such large values."
        )
    elif 0 < value < SMALL_VALUE:
        yield (
            f"Expect |Q| of only {value:.2g}, less than an untrained critic's; give --data.reward-scale "
            f"{10.0 ** np.ceil(-np.log10(value)):g}."
        )
    steps = counts["length_median"]
    if rewards["rewarded_share"] < 0.02 and rewards["distinct"] > 1 and discount**steps < 0.05:
        wanted = 1 - 1 / max(steps, 2)
        yield (
            f"Rewards are rare, and after a median episode of {steps:g} steps only {discount**steps:.1g} of one is "
            f"left at the start; give --agent.discount {wanted:.4g} or more, or --agent.n-step."
        )
    if 0 < rewards["rewarded_episodes_share"] < 0.05 and rewards["distinct"] > 1:
        yield f"Only {rewards['rewarded_episodes_share']:.1%} of the episodes have a reward; log more that succeed."


def _actions(facts: dict[str, Any], rounding: float) -> Iterator[str]:
    stated = facts["action_limits"]
    limits = itertools.repeat((-np.inf, np.inf)) if stated is None else zip(*stated, strict=True)
    for column, (low, high) in zip(facts["actions"], limits, strict=False):
        slack = rounding * max(abs(low), abs(high))
        if column["low"] < low - slack or column["high"] > high + slack:
            yield (
                f"{column['name']} is {column['low']:.6g} to {column['high']:.6g}, beyond the stated limits {low:.6g} "
                f"to {high:.6g}, and training refuses that; correct them, or give --data.action-low and "
                "--data.action-high."
            )
        if column["constant"]:
            continue
        share = column["at_low"] + column["at_high"]
        if share == 1:
            yield (
                f"{column['name']} has two values only, as an on-off command has, but a policy also gives values "
                "between them; round to the nearer one where it acts."
            )
        elif share > SATURATED:
            yield (
                f"{column['name']} is at a limit in {share:.0%} of the steps; if it was clipped, the policy cannot "
                "learn what was meant: log the commands before clipping, or widen --data.action-low and "
                "--data.action-high."
            )
        if column["smoothness"] < 0.1 and facts["counts"]["steps"] > 100:
            yield (
                f"{column['name']} looks like independent noise (correlation of successive values "
                f"{column['smoothness']:.2f}); check that each action belongs to its own step."
            )


def _repetition(facts: dict[str, Any]) -> Iterator[str]:
    counts, near = facts["counts"], facts["coverage"]
    if counts["duplicate_episodes"]:
        yield (
            f"{counts['duplicate_episodes']:,} episodes are copies of others, so that held-out ones may be trained on; "
            "drop them."
        )
    elif counts["duplicate_steps"] > 0.01 * counts["steps"]:
        yield (
            f"{counts['duplicate_steps']:,} steps ({counts['duplicate_steps'] / counts['steps']:.1%}) repeat another's "
            "observation and action; check for stalled sensors, or drop idle stretches."
        )
    if near is not None and near["distance_median"] > 1:
        yield (
            f"The nearest state of another episode is {near['distance_median']:.2g} deviations away, so that episodes "
            "share hardly any states; log more, or drop dimensions that only tell episodes apart."
        )
