"""The facts of the data report, as JSON-able numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sorl.data.own_logs.load import held_out_trajectories
from sorl.data.own_logs.scales import rounding
from sorl.data.recorded.digest import digest
from sorl.data.recorded.episodes import Recording
from sorl.data.summary import summarise
from sorl.inspect.advice import LATE, advice
from sorl.inspect.collect import SAMPLED_STEPS, Collected, collect
from sorl.inspect.coverage import coverage
from sorl.inspect.histogram import histogram
from sorl.inspect.tracker import Tracker
from sorl.inspect.values import reward_facts


def inspected(
    recording: Recording,
    *,
    discount: float = 0.99,
    validation_fraction: float = 0.1,
    advance: Callable[[int], None] = lambda steps: None,
) -> dict[str, Any]:
    """The data report of a recording, in one pass over its episodes.

    **Arguments:** `discount` and `validation_fraction`, those that training will use; `advance`, called with the number
    of steps of each episode.

    **Returns:** JSON-able facts: `counts`, `observations` and `actions` (one entry a dimension), `action_limits` (what
    the data state, or None), `rewards`, `times`, `coverage`, `split`, `notes` (what was corrected), and `warnings`,
    sentences that say what to do.

    Raises a `ValueError` for data that cannot be used.
    """
    found = collect(recording, advance)
    held_out = _held_out(found, validation_fraction)
    observations, actions = found.observations.columns(), found.actions.columns()
    # A step can be trained on if the state after it is known, or if it ended the task.
    trainable = np.ones(len(found.rewards), np.bool_)
    trainable[found.ends] = found.has_last_state
    trainable |= found.terminated
    summary = summarise(
        observations, actions, found.rewards, found.ends, found.terminated, transitions=int(trainable.sum())
    )
    facts: dict[str, Any] = {
        "path": str(recording.path),
        **recording.about(),
        **digest(recording.files, recording.path),
        "counts": {
            "episodes": summary["episodes"],
            "steps": summary["rows"],
            "transitions": summary["transitions"],
            "terminated": int(found.terminated[found.ends].sum()),
            "truncated": int(found.truncated.sum()),
            "without_last_state": int((~found.has_last_state).sum()),
            "terminated_inside": int(found.terminated_inside.sum()),
            "places_inside": _runs(found.terminated_inside, found.starts),
            "rewarded_and_dropped": int((found.rewards[~trainable] != 0).sum()),
            "duplicate_steps": found.duplicate_steps,
            "duplicate_episodes": found.duplicate_episodes,
            **{name: value for name, value in summary.items() if name.startswith("length_")},
        },
        "lengths": histogram(found.lengths),
        "observations": _dimensions("observations", found, found.observations, summary),
        "actions": _dimensions("actions", found, found.actions, summary),
        "action_limits": None if recording.action_limits is None else [list(side) for side in recording.action_limits],
        "rewards": {
            **{name.removeprefix("reward_"): value for name, value in summary.items() if name.startswith("reward_")},
            **{name: value for name, value in summary.items() if name.startswith("return_")},
            **reward_facts(found, discount),
        },
        "times": _times(found),
        "coverage": coverage(found.sample, observations, actions, held_out),
        "split": _split(found, held_out, trainable),
        "sampled": {"steps": len(found.sample.actions), "at_most": SAMPLED_STEPS},
        "notes": [*found.notes, *_beside(recording)],
    }
    # The warnings follow from all other facts.
    facts["warnings"] = advice(facts, rounding(found.actions.dtype))
    return facts


def _held_out(found: Collected, fraction: float) -> np.ndarray:
    own = found.recording.held_out
    if found.recording.beside is not None:
        return np.zeros(len(found.names), np.bool_)
    if own:
        return np.array([name in own for name in found.names])
    return held_out_trajectories(len(found.names), fraction, seed=0)


def _beside(recording: Recording) -> list[str]:
    if recording.beside is None:
        return []
    return [f"Training holds out {recording.beside.name} in place of episodes of these data; inspect it by its name."]


def _runs(chosen: np.ndarray, starts: np.ndarray) -> int:
    """Number of runs of consecutive chosen steps within episodes."""
    before = np.roll(chosen, 1)
    before[starts] = False
    return int((chosen & ~before).sum())


def _dimensions(kind: str, found: Collected, tracker: Tracker, summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The facts about each column of the observations or actions."""
    columns, (at_low, at_high), angles = tracker.columns(), tracker.at_limits(), tracker.angles()
    names = getattr(found.recording, f"{kind.removesuffix('s')}_names")
    sampled = getattr(found.sample, kind)
    listed = []
    for index, name in enumerate(names):
        key, angle = f"{kind}[{index}]", angles[index]
        listed.append(
            {
                "name": name,
                "low": float(columns.low[index]),
                "high": float(columns.high[index]),
                "mean": float(columns.mean[index]),
                "deviation": float(columns.deviation[index]),
                "at_low": float(at_low[index]),
                "at_high": float(at_high[index]),
                "constant": bool(columns.constant[index]),
                "nearly_constant": key in summary["nearly_constant"],
                "unusual_scale": key in summary["unusual_scale"],
                "angle": angle,
                "wraps": int(tracker.wraps[angle][index]) if angle else 0,
                "usual_step": float(tracker.usual_step()[index]),
                "largest_step": float(tracker.largest_step[index]),
                "largest_step_at": tracker.largest_step_at[index],
                "smoothness": float(tracker.smoothness()[index]),
                "noise": float(tracker.noise()[index]),
                "histogram": histogram(sampled[:, index].astype(np.float64)),
            }
        )
    return listed


def _times(found: Collected) -> dict[str, float] | None:
    if found.intervals is None or not len(found.intervals):
        return None
    usual = float(np.median(found.intervals))
    irregular = np.abs(found.intervals - usual) > LATE / 100 * abs(usual)
    return {
        "usual": usual,
        "shortest": float(found.intervals.min()),
        "longest": float(found.intervals.max()),
        "irregular_share": float(irregular.mean()),
    }


def _split(found: Collected, held_out: np.ndarray, trainable: np.ndarray) -> dict[str, Any]:
    """Episodes, steps, transitions and mean return of the parts for training and validation."""
    returns = np.add.reduceat(found.rewards, found.starts)
    transitions = np.add.reduceat(trainable.astype(int), found.starts)
    parts = {"train": ~held_out, "validation": held_out}
    return {
        name: {
            "episodes": int(chosen.sum()),
            "steps": int(found.lengths[chosen].sum()),
            "transitions": int(transitions[chosen].sum()),
            "return_mean": float(returns[chosen].mean()) if chosen.any() else None,
        }
        for name, chosen in parts.items()
    }
