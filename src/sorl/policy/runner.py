"""Runs a policy in a control loop: one action per step, a key per decision, and counts of clipped observations."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from sorl.data.normalisation import Standardisation


NAMED = 5
"""Maximum number of dimensions that a message names."""


@runtime_checkable
class Acts(Protocol):
    """The protocol of a runner's policy, which is a `Policy` or an object with the same interface."""

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        ...

    @property
    def chunk(self) -> int:
        """Number of actions per decision."""
        ...

    def __call__(
        self,
        observation: Any,
        *,
        key: Any = None,
        steps: Any = None,
        candidates: Any = None,
        noise_scale: Any = None,
        budget: Any = None,
    ) -> Float[np.ndarray, "..."]:
        """Acts on one observation or a batch of them."""
        ...

    def outside(self, observation: Any) -> Bool[np.ndarray, "..."]:
        """Which numbers of an observation are beyond the limits of the logs."""
        ...


class PolicyRunner:
    """Acts on one observation after another, and counts how often each dimension was outside its limits.

    Decision `i` uses the key `jax.random.fold_in(key, i)`, so that a repeated loop acts the same. With action chunks,
    the policy decides at every `policy.chunk`-th call; the calls in between return the remaining actions and ignore the
    observation. Call `reset` at the start of each episode.
    """

    def __init__(self, policy: Acts, key: Key[Array, ""], budget: Mapping[str, Any]):
        self.policy = policy
        self.decisions = 0
        """Number of decisions so far; without action chunks, the number of calls."""
        self.outside: Int[np.ndarray, " observation"] = np.zeros(policy.observation_size, np.int64)
        """For each dimension, the number of observations that were outside the limits and therefore clipped."""
        self._key, self._budget = key, dict(budget)
        self._left: list[Float[np.ndarray, "*batch action"]] = []
        """Remaining actions of the last decision, in reverse order."""

    def __call__(
        self, observation: Shaped[Array | np.ndarray, "*batch observation"]
    ) -> Float[np.ndarray, "*batch action"]:
        """The next action, for one observation or a batch of them; raises as the policy does.

        Raises a `ValueError` if the batch shape differs from that of the last decision while its actions remain.
        """
        outside = self.policy.outside(observation)
        if not self._left:
            actions = self.policy(observation, key=jax.random.fold_in(self._key, self.decisions), **self._budget)
            self.outside += outside.reshape(-1, self.policy.observation_size).sum(axis=0)
            self.decisions += 1
            self._left = [*np.moveaxis(actions, -2, 0)][::-1] if self.policy.chunk > 1 else [actions]
        if self._left[-1].shape[:-1] != outside.shape[:-1]:
            raise ValueError(
                f"The observation has shape {outside.shape}, but the actions that are left were decided for a batch of "
                f"shape {self._left[-1].shape[:-1]}; call reset where an episode begins."
            )
        return self._left.pop()

    def reset(self) -> None:
        """Starts an episode: the remaining actions of the last decision are dropped."""
        self._left = []

    def report(self) -> str:
        """One sentence about the observations that were outside their limits."""
        worst = [index for index in np.argsort(-self.outside, kind="stable") if self.outside[index]]
        if not worst:
            return f"Of {self.decisions} decisions, no observation was outside of its limits."
        named = ", ".join(f"observations[{index}] in {self.outside[index]}" for index in worst[:NAMED])
        others = f", and {len(worst) - NAMED} others" if len(worst) > NAMED else ""
        return f"Of {self.decisions} decisions, outside of their limits and clipped: {named}{others}."


def outside_sentence(
    standardisation: Standardisation,
    outside: Bool[np.ndarray, "*batch observation"],
    values: Shaped[np.ndarray, "*batch observation"],
) -> str:
    """One sentence that names the dimensions outside their limits, each with its first such value."""
    size = values.shape[-1]
    outside, values, (low, high) = outside.reshape(-1, size), values.reshape(-1, size), standardisation.limits()
    dimensions = np.flatnonzero(outside.any(axis=0))
    named = ", ".join(
        f"observations[{index}] = {values[np.argmax(outside[:, index]), index]:.10g} "
        f"(limits {low[index]:.10g} to {high[index]:.10g})"
        for index in dimensions[:NAMED]
    )
    others = f", and {len(dimensions) - NAMED} others" if len(dimensions) > NAMED else ""
    return (
        f"The policy acts outside of what was logged, and clips {named}{others}; check the sensors, or log such states "
        "(further cases are counted by policy.runner, and not warned of)."
    )
