"""Runs a policy in a control loop: one action per step, a key per decision, smoothing, a deadline, and counts."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from sorl.data.normalisation import Normalisation, Standardisation
from sorl.policy.deadline import Deadline
from sorl.policy.smoothing import OverlapAveraging, Smoothing


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

    @property
    def normalisation(self) -> Normalisation:
        """The units of observations, with their mean."""
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
    observation. Call `reset` at the start of each episode. A call that raises changes nothing.
    """

    def __init__(
        self,
        policy: Acts,
        key: Key[Array, ""],
        budget: Mapping[str, Any],
        smoothing: Smoothing | None = None,
        deadline: Deadline | None = None,
    ):
        if isinstance(smoothing, OverlapAveraging) and policy.chunk == 1:
            raise ValueError("OverlapAveraging is for policies that give action chunks, and this one gives one action.")
        self.policy = policy
        self.smoothing, self.deadline = smoothing, deadline
        self.decisions = 0
        """Number of decisions so far; without action chunks, or with `OverlapAveraging`, the number of calls."""
        self.observations = 0
        """Number of observations in all decisions so far; larger than `decisions` if batches were given."""
        self.outside: Int[np.ndarray, " observation"] = np.zeros(policy.observation_size, np.int64)
        """For each dimension, the number of observations that were outside the limits and therefore clipped."""
        self._key, self._budget = key, dict(budget)
        self.reset()

    def __call__(
        self, observation: Shaped[Array | np.ndarray, "*batch observation"], taken_at: float | None = None
    ) -> Float[np.ndarray, "*batch action"]:
        """The next action, for one observation or a batch of them; raises as the policy does.

        **Arguments:** `taken_at`, when the observation was taken, a reading of `time.monotonic()`; the deadline counts
        from then (default: from the call).

        Raises a `ValueError` if the batch shape differs from that of the last decision while its actions remain or are
        smoothed, and a `LateObservation` if a decision is due and its action would come after the deadline.
        """
        if taken_at is not None and self.deadline is None:
            raise ValueError("The time of an observation is given, but the runner has no deadline; give deadline_ms.")
        outside = self.policy.outside(observation)
        has_earlier = any(self._chunks) or self._previous is not None
        if has_earlier and outside.shape[:-1] != self._batch:
            raise ValueError(
                f"The observation has shape {outside.shape}, but the actions that are left were decided for a batch of "
                f"shape {self._batch}; call reset where an episode begins."
            )
        if not self._chunks or not self._chunks[-1] or isinstance(self.smoothing, OverlapAveraging):
            self._decide(observation, outside, taken_at)
        return self._next()

    def reset(self) -> None:
        """Starts an episode: remaining actions of earlier decisions are dropped, and smoothing starts anew."""
        self._chunks: list[list[Float[np.ndarray, "*batch action"]]] = []
        """Remaining actions of the decisions that still matter, each in reverse order; the oldest decision first."""
        self._previous: Float[np.ndarray, "*batch action"] | None = None
        self._batch: tuple[int, ...] = ()
        """The batch shape of the last decision."""

    def prepare(self) -> None:
        """Compiles what a decision on one observation needs, before the loop begins; nothing is counted."""
        # In double precision: a clock's mean, rounded to single precision, may be outside of the limits.
        observation = self.policy.normalisation.standardisation().mean
        self.policy.outside(observation)
        self.policy(observation, key=jax.random.fold_in(self._key, 0), **self._budget)

    def _decide(
        self, observation: Any, outside: Bool[np.ndarray, "*batch observation"], taken_at: float | None
    ) -> None:
        begin = None if self.deadline is None else self.deadline.begin(taken_at)
        actions = self.policy(observation, key=jax.random.fold_in(self._key, self.decisions), **self._budget)
        if self.deadline is not None and begin is not None:
            self.deadline.end(begin)
        self.outside += outside.reshape(-1, self.policy.observation_size).sum(axis=0)
        self.observations += int(np.prod(outside.shape[:-1]))
        self.decisions += 1
        self._batch = outside.shape[:-1]
        self._chunks = [chunk for chunk in self._chunks if chunk]
        self._chunks.append([*np.moveaxis(actions, -2, 0)][::-1] if self.policy.chunk > 1 else [actions])

    def _next(self) -> Float[np.ndarray, "*batch action"]:
        """Takes this step's action of each decision, and smooths."""
        actions = [chunk.pop() for chunk in self._chunks]
        if isinstance(self.smoothing, OverlapAveraging):
            return self.smoothing(actions)
        if self.smoothing is None:
            return actions[-1]
        self._previous = self.smoothing(self._previous, actions[-1])
        return self._previous.copy()  # a caller may change what it gets

    def report(self) -> str:
        """One sentence about the observations that were outside their limits, and one about a deadline."""
        late = "" if self.deadline is None else f" {self.deadline.report()}"
        return self._report_of_limits() + late

    def _report_of_limits(self) -> str:
        count = f"{self.observations} observation{'s' * (self.observations != 1)}"
        worst = [index for index in np.argsort(-self.outside, kind="stable") if self.outside[index]]
        if not worst:
            return f"Of {count}, none was outside of its limits."
        named = ", ".join(f"observations[{index}] in {self.outside[index]}" for index in worst[:NAMED])
        others = f", and {len(worst) - NAMED} others" if len(worst) > NAMED else ""
        return f"Of {count}, outside of their limits and clipped: {named}{others}."


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
