"""Evaluates a policy's success or return at a compute budget over a fixed number of seeded episodes."""

import dataclasses
import threading
import time
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sorl.agents import Budget
from sorl.config.json_form import to_json
from sorl.environments.interface import SuccessTiming
from sorl.environments.named import is_ogbench
from sorl.environments.pool import Environments
from sorl.evaluate.episodes import compile_policy, episode_seeds, play
from sorl.evaluate.fitting import refuse_misfit
from sorl.policy import Policy
from sorl.statistics.intervals import bootstrap_interval, wilson_interval
from sorl.statistics.measures import RETURN, SUCCESS, Measure
from sorl.system.packages import installed_version
from sorl.system.signals import Interrupted


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """The results of one policy's episodes at one budget."""

    env: str
    budget: Budget
    seed: int
    """The seed of the episodes: of their initial states and of the policy's noise."""
    success_timing: SuccessTiming | None
    """None if the environment judges success itself."""
    ogbench_version: str | None
    """The installed version; None for an environment that is not OGBench's."""
    episode_seeds: Int[np.ndarray, " episodes"]
    success: Bool[np.ndarray, " episodes"] | None
    """The last reported `info["success"]` of each episode, False where none was; None if no episode reported one."""
    returns: Float[np.ndarray, " episodes"]
    """Undiscounted sum of rewards of each episode."""
    lengths: Int[np.ndarray, " episodes"]
    """Number of environment steps of each episode."""
    seconds: float
    """Wall-clock time of the episodes, without compilation and the creation of environments."""

    @property
    def steps_per_second(self) -> float:
        """Environment steps per second, including the policy's computation."""
        return float(self.lengths.sum()) / self.seconds

    @property
    def measure(self) -> Measure:
        """The measure of the result: success if it was reported, else the return."""
        return RETURN if self.success is None else SUCCESS

    @property
    def scores(self) -> Shaped[np.ndarray, " episodes"]:
        """The measure of each episode."""
        return self.returns if self.success is None else self.success

    def row(self) -> dict[str, Any]:
        """One row of a table, JSON-able: budget, counts, means, the 95 % interval of the measure, and timing.

        The interval of success is Wilson's. Without success, its fields are None, and the return has a bootstrap
        interval.
        """
        return to_json(self.budget) | {
            "env": self.env,
            "seed": self.seed,
            "episodes": len(self.returns),
            **success_fields(self.success),
            "return": float(self.returns.mean()),
            **self._return_interval(),
            "length": float(self.lengths.mean()),
            "seconds": self.seconds,
            "steps_per_second": self.steps_per_second,
            "success_timing": self.success_timing,
            "ogbench_version": self.ogbench_version,
        }

    def metrics(self) -> dict[str, float]:
        """The metrics that a run logs: means, and the interval of the return if there is no success."""
        judged = {} if self.success is None else {"success": self.success.mean()}
        means = {"return": self.returns.mean(), **self._return_interval(), "episode_length": self.lengths.mean()}
        return {f"evaluation/{name}/{self.budget.name}": float(value) for name, value in (judged | means).items()}

    def per_episode(self) -> dict[str, list[Any] | None]:
        """The values that `row` averages, JSON-able: one entry for each episode."""
        names = ("episode_seeds", "success", "returns", "lengths")
        columns = {name: getattr(self, name) for name in names}
        return {name: None if column is None else column.tolist() for name, column in columns.items()}

    def with_success(self) -> "EvaluationResult":
        """The same result, with no success in each episode if none was reported.

        Some environments report a success only when they succeed. A result without one then counts as no success
        wherever another result of the environment has one.
        """
        none = np.zeros(len(self.returns), bool)
        return dataclasses.replace(self, success=none) if self.success is None else self

    def _return_interval(self) -> dict[str, float]:
        if self.success is not None:
            return {}
        return dict(zip(("return_low", "return_high"), bootstrap_interval(self.returns), strict=True))


def success_fields(success: Bool[np.ndarray, " episodes"] | None) -> dict[str, int | float | None]:
    """The fields of a row about the success of episodes, with Wilson's interval; all are None without a success."""
    if success is None:
        return dict.fromkeys(("successes", "success", "success_low", "success_high"))
    successes, episodes = int(success.sum()), len(success)
    low, high = wilson_interval(successes, episodes)
    return {"successes": successes, "success": successes / episodes, "success_low": low, "success_high": high}


def evaluate_policy(
    policy: Policy,
    environments: Environments,
    *,
    budget: Budget | None = None,
    episodes: int,
    seed: int = 0,
    stop: threading.Event | None = None,
) -> EvaluationResult:
    """Plays `episodes` episodes and returns their results, which do not depend on the kind or number of environments.

    All budgets play the same episodes, so that they can be compared in pairs. The policy is compiled once for each
    structure of actor and networks, budget and number of rows (`sorl.evaluate.deciding.batch_rows`).

    **Arguments:** `policy`; `environments`, which nothing else may use at the same time; `budget` of each decision
    (default: the policy's own); `episodes`, at least 1; `seed` of the episodes; `stop`, an event with which another
    thread can end the evaluation.

    Raises a `ValueError` if policy and environment differ in their sizes or action ranges or if the policy does not
    support the budget, a `FloatingPointError` if the policy gives an action that is not finite, an
    `EnvironmentWorkerError` if a worker fails, and `Interrupted` if it was stopped.
    """
    if episodes < 1:
        raise ValueError(f"An evaluation over {episodes} episodes says nothing; give at least 1.")
    policy = policy if budget is None else policy.with_budget(budget)
    # Create the environments and compile before the clock starts.
    refuse_misfit(environments, policy.normalisation)
    compile_policy(policy, episodes=episodes)
    success, has_success = np.zeros(episodes, bool), np.zeros(episodes, bool)
    returns = np.zeros(episodes)
    lengths = np.zeros(episodes, np.int64)
    start = time.perf_counter()
    # Play, and add each step to its episode's results.
    for moment in play(policy, environments, episodes=episodes, seed=seed):
        if stop is not None and stop.is_set():
            raise Interrupted
        reported = moment.outcome.has_success
        success[moment.episodes[reported]] = moment.outcome.success[reported]  # the last reported success counts
        has_success[moment.episodes] |= reported
        returns[moment.episodes] += moment.outcome.rewards
        lengths[moment.episodes] += 1
    # OGBench may be missing, because a caller's own environments do not need it.
    ogbench_version = installed_version("ogbench") or "not installed" if is_ogbench(environments.env_name) else None
    return EvaluationResult(
        env=environments.env_name,
        budget=policy.budget,
        seed=seed,
        success_timing=environments.success_timing,
        ogbench_version=ogbench_version,
        episode_seeds=episode_seeds(seed, episodes),
        success=success if has_success.any() else None,
        returns=returns,
        lengths=lengths,
        seconds=time.perf_counter() - start,
    )
