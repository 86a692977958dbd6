"""A grid of compute budgets played and timed pair by pair, so that one that was stopped goes on where it was.

Every finished pair is a file of its own. They lie in a directory named after a digest of all that the numbers depend
on: policies, episodes, decisions, timing, versions and device. So results of other policies or settings are never mixed
in.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from sorl.agents import AbstractAgent, Budget
from sorl.data.normalisation import Normalisation
from sorl.environments.interface import SuccessTiming
from sorl.environments.pool import STEP_TIMEOUT, EnvironmentPool, Environments
from sorl.evaluate.evaluation import evaluate
from sorl.policy import Policy
from sorl.system.files import read_json, write_json
from sorl.system.progress import Progress


LEAST_CALLS = 20
"""Decisions that are timed at least, however long they take."""

Record = dict[str, Any]
"""A finished pair: `rows`, one for each training seed with every episode, and `latency`, one for each batch size."""


class Subject(NamedTuple):
    """What is played."""

    env: str
    success_timing: SuccessTiming
    agent: AbstractAgent
    policies: dict[int, PyTree]
    """Networks by training seed."""
    normalisation: Normalisation


class Effort(NamedTuple):
    """How much of it is played and timed."""

    episodes: int
    """Of each training seed at each budget."""
    seed: int
    """Of the episodes; the same ones for every budget and training seed."""
    batch_sizes: tuple[int, ...]
    """Numbers of observations that timed decisions are made for."""
    timing_seconds: float
    """How long the decisions of a budget at a batch size are timed."""


class Grid:
    """The pairs of a grid: those that are finished, on the disk, and those that are still to be played.

    **Arguments:** `directory` for the results of all grids of a run; `subject`; `effort`; `budgets`, each once;
    `circumstances`, JSON-able: what else the numbers depend on, such as how decisions are made.
    """

    def __init__(
        self,
        directory: Path,
        subject: Subject,
        effort: Effort,
        budgets: Sequence[Budget],
        circumstances: dict[str, Any],
    ):
        self._subject, self._effort = subject, effort
        self.budgets = tuple(budgets)
        self.settings = circumstances | _settings(subject, effort)
        """All that the numbers depend on but the pair itself, JSON-able."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        self.directory = directory / digest[:12]
        """Where the finished pairs are."""

    def finished(self) -> list[Budget]:
        """The pairs that need not be played."""
        return [budget for budget in self.budgets if self._path(budget).exists()]

    def records(self) -> list[Record]:
        """The finished pairs, in the order of the budgets."""
        return [
            read_json(self._path(budget), "delete it, so that the pair is played again") for budget in self.finished()
        ]

    def finish(self, workers: int, *, step_timeout: float = STEP_TIMEOUT, quiet: bool = False) -> None:
        """Plays and times the pairs that are not finished.

        **Arguments:** `workers` and `step_timeout` as for `sorl.environments.pool.EnvironmentPool`; `quiet`, to show no
        progress. Finished pairs are kept whatever it raises.
        """
        finished = self.finished()
        missing = [budget for budget in self.budgets if budget not in finished]
        self.directory.mkdir(parents=True, exist_ok=True)
        write_json(self.directory / "settings.json", self.settings)
        each = self._effort.episodes * len(self._subject.policies)
        with ExitStack() as stack:
            total, done = each * len(self.budgets), each * len(finished)
            progress = stack.enter_context(Progress(total, done, quiet=quiet, unit="episodes"))
            if missing:
                timing = self._subject.success_timing
                pool = EnvironmentPool(
                    self._subject.env, workers=workers, success_timing=timing, step_timeout=step_timeout
                )
                stack.enter_context(pool)
                for budget in missing:
                    write_json(self._path(budget), self._record(budget, pool, progress))

    def _record(self, budget: Budget, environments: Environments, progress: Progress) -> Record:
        rows = []
        for training_seed, policy in self._subject.policies.items():
            result = evaluate(
                self._subject.agent,
                policy,
                environments,
                normalisation=self._subject.normalisation,
                budget=budget,
                episodes=self._effort.episodes,
                seed=self._effort.seed,
            )
            rows.append({"training_seed": training_seed} | result.row() | {"outcomes": result.per_episode()})
            score = {result.measure.name: float(result.scores.mean())}
            progress.show({"M^inf": float(budget.inference_steps), "N": float(budget.candidates)} | score)
            progress.advance(self._effort.episodes)
        sizes, seconds = self._effort.batch_sizes, self._effort.timing_seconds
        return {"rows": rows, "latency": [time_decisions(self._subject, budget, size, seconds) for size in sizes]}

    def _path(self, budget: Budget) -> Path:
        return self.directory / f"{budget.name}.json"


def time_decisions(subject: Subject, budget: Budget, batch_size: int, seconds: float) -> dict[str, Any]:
    """What a deployed policy takes to decide for `batch_size` observations: median and 95th percentile in ms.

    Calls from numpy to numpy are timed for `seconds`, and at least `LEAST_CALLS` of them; compilation does not count.
    """
    policy = Policy(subject.agent, next(iter(subject.policies.values())), subject.normalisation)
    observations = np.tile(np.asarray(subject.normalisation.observation_mean), (batch_size, 1))
    key = jax.random.key(0)

    def decision() -> float:
        start = time.perf_counter()
        policy(observations, key=key, budget=budget)
        return time.perf_counter() - start

    decision()  # compiles
    times: list[float] = []
    while len(times) < LEAST_CALLS or sum(times) < seconds:
        times.append(decision())
    median, high = (1000 * float(quantile) for quantile in np.quantile(times, [0.5, 0.95]))
    return {"batch_size": batch_size, "median_ms": median, "p95_ms": high, "calls": len(times)}


def _settings(subject: Subject, effort: Effort) -> dict[str, Any]:
    digests = {
        str(seed): Policy(subject.agent, networks, subject.normalisation).digest
        for seed, networks in subject.policies.items()
    }
    played = {"env": subject.env, "success_timing": subject.success_timing, "policies": digests}
    return played | effort._asdict()
