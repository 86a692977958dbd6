"""The range of values that the data's rewards allow; a critic with a mean value outside it has diverged."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float

from sorl.config.population import Member
from sorl.statistics.rows import member_of


WATCHED = ("q_mean", "target_q_mean", "v_mean", "policy_q_mean")
"""Metrics that are means of discounted sums of rewards."""
TOLERANCE = 0.01
"""The largest excess, as a share of the range's width, at which a mean value still counts as inside.

With rewards of 1 and a discount of 0.99 it is a value of 1, which the mean value of untrained critics can reach.
"""
REMEDIES = {
    "q_coefficient": "lower",
    "distillation_coefficient": "higher",
    "flow_matching_coefficient": "higher",
    "expectile": "lower",
    "temperature": "lower",
    "learning_rate": "lower",
}
"""How to change a setting so that the policy stays closer to the data; warnings name the first that an agent has."""
SMALL_REWARD = 0.1
"""If no reward is larger in magnitude, warnings advise to scale rewards up: for a long time, the values of an untrained
critic, a few tenths, outweigh them."""

Rewards = Float[np.ndarray, " transitions"]


class ValueRange(NamedTuple):
    """The smallest and the largest possible discounted sum of rewards."""

    low: float
    high: float
    width: float
    """The width of the range; at a discount of 1, where sums have no limit, the width at a discount of 0.99."""

    def excess(self, value: float) -> float:
        """The distance of `value` from the range, as a share of its width (of 1 if that is 0); 0 inside."""
        return max(self.low - value, value - self.high, 0.0) / (self.width or 1.0)


def value_range(rewards: Rewards, discount: float) -> ValueRange:
    """The range from r_min / (1 - discount) to r_max / (1 - discount), extended to 0.

    It includes 0 because the values of untrained critics start there, and because a termination ends a sum early.
    """
    low, high = min(float(rewards.min()), 0.0), max(float(rewards.max()), 0.0)
    if discount < 1:
        ends = low / (1 - discount), high / (1 - discount)
        return ValueRange(*ends, ends[1] - ends[0])
    return ValueRange(-np.inf if low < 0 else 0.0, np.inf if high > 0 else 0.0, 100 * (high - low))


class Departure(NamedTuple):
    """The departure of a seed's values from the range."""

    step: int
    """The first logged step with a value outside."""
    lasting: bool
    """Whether the seed's last row has a value outside too."""


def departures(rows: Iterable[Mapping[str, Any]]) -> dict[int, Departure]:
    """The seeds (or members of a population) whose values left the range, from the rows of a run (`read_metrics`)."""
    found: dict[int, Departure] = {}
    for row in rows:
        if "training/value_excess" not in row:
            continue
        seed, is_outside = int(member_of(row)), row["training/value_excess"] > TOLERANCE
        if seed in found or is_outside:
            first = found[seed].step if seed in found else int(row["step"])
            found[seed] = Departure(first, is_outside)
    return found


class ValueWatch:
    """Compares the mean values in a run's rows with the range, and warns once of each seed that leaves it.

    **Arguments:** `members`, by training seed or number, whose agents have a discount; `rewards`, those of the training
    data; `earlier`, the run's existing rows, whose warnings are not repeated.
    """

    def __init__(self, members: Mapping[int, Member], rewards: Rewards, earlier: Iterable[Mapping[str, Any]] = ()):
        self._members, self._largest = members, float(np.abs(rewards).max())
        discounts: dict[int, Any] = {number: cast(Any, member.agent).discount for number, member in members.items()}
        by_discount = {discount: value_range(rewards, discount) for discount in set(discounts.values())}
        self._allowed = {number: by_discount[discount] for number, discount in discounts.items()}
        for number, member in members.items():
            if member.agent.values_may_be_lower:
                self._allowed[number] = self._allowed[number]._replace(low=-np.inf)
        self._departures = departures(earlier)

    def check(self, step: int, rows: Mapping[int, dict[str, Any]]) -> list[str]:
        """Adds `training/value_excess` to each seed's row; **returns** the warnings, one sentence each."""
        warnings = []
        for seed, row in rows.items():
            values = {name: float(row[name]) for name in (f"training/{one}" for one in WATCHED) if name in row}
            if not values:  # an agent may log none of them
                continue
            excess = {name: self._allowed[seed].excess(value) for name, value in values.items()}
            worst = max(excess, key=lambda name: excess[name])
            row["training/value_excess"] = excess[worst]
            now = departures([row | {"step": step, "seed": seed}])
            if seed in self._departures:
                self._departures[seed] = self._departures[seed]._replace(lasting=seed in now)
            elif now:
                self._departures |= now
                warnings.append(self._warning(step, seed, worst, values[worst]))
        return warnings

    def verdicts(self) -> list[str]:
        """A sentence for each seed whose last row has a value outside the range."""
        return [
            f"{self._name(seed)} is not to be trusted: its values left the range that the data's rewards allow at "
            f"update {departure.step} and are outside it in the last row; try {self._remedy(seed)}."
            for seed, departure in self._departures.items()
            if departure.lasting
        ]

    def _warning(self, step: int, seed: int, name: str, value: float) -> str:
        low, high, _ = self._allowed[seed]
        return (
            f"{self._name(seed)}: {name} is {value:.4g} at update {step}, but the data's rewards allow only {low:.4g} "
            f"to {high:.4g}, so the critic is not to be trusted; try {self._remedy(seed)}."
        )

    def _name(self, seed: int) -> str:
        return self._members[seed].label

    def _remedy(self, seed: int) -> str:
        agent = self._members[seed].agent
        known = {name: getattr(agent, name, None) for name in REMEDIES}
        found = next((name for name, value in known.items() if isinstance(value, int | float)), None)
        setting = "settings that keep the policy nearer to the data"
        if found is not None:
            setting = f"a {REMEDIES[found]} --agent.{found.replace('_', '-')} (now {known[found]:g})"
        if 0 < self._largest < SMALL_REWARD:
            return f"rewards times {1 / self._largest:.2g} (the largest is {self._largest:.2g}), or {setting}"
        return setting
