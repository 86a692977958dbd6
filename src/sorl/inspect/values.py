"""Rewards, returns, and the values that a critic will have to represent."""

from typing import Any

import numpy as np

from sorl.data.returns import discounted_sums
from sorl.inspect.collect import Collected
from sorl.inspect.histogram import histogram


def reward_facts(found: Collected, discount: float) -> dict[str, Any]:
    """Facts about rewards, returns and values, JSON-able.

    `value_observed` is the largest discounted return in magnitude from any step, which lacks what came after the end of
    a cut episode; `value_limit` is the largest reward in magnitude / (1 - discount), which no value exceeds.
    """
    rewards = found.rewards
    returns = np.add.reduceat(rewards, found.starts)
    discounts = np.where(found.terminated, 0.0, discount)
    to_go = discounted_sums(rewards, discounts, found.starts + found.lengths - 1, found.lengths)
    largest = float(np.abs(rewards).max())
    scores = found.recording.reference_scores
    facts = {
        "distinct": int(min(len(np.unique(rewards)), 1000)),
        "rewarded_share": float((rewards != 0).mean()),
        "rewarded_episodes_share": float((np.maximum.reduceat(rewards != 0, found.starts)).mean()),
        "deviation": float(rewards.std()),
        "return_deviation": float(returns.std()),
        "histogram": histogram(rewards),
        "return_histogram": histogram(returns),
        "discount": discount,
        "value_observed": float(np.abs(to_go).max()),
        "value_limit": float("inf") if discount >= 1 and largest else largest / max(1 - discount, 1e-300),
        "value_at_start_mean": float(to_go[found.starts].mean()),
        "horizon": float("inf") if discount >= 1 else 1 / (1 - discount),
    }
    if scores is not None and scores[1] != scores[0]:
        normalised = (returns - scores[0]) / (scores[1] - scores[0])
        facts["normalised_return_mean"] = float(normalised.mean())
        facts["normalised_return_max"] = float(normalised.max())
    return facts
