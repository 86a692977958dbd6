"""Plays and times a grid of compute budgets pair by pair, so that an interrupted grid can be continued.

Every finished pair has its own file. The directory's name is a digest of everything that the numbers depend on
(policies, episodes, decisions, timing, versions and device) except the code of a user's own environment, so results of
other policies or settings are never mixed.
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

from sorl.agents import Budget
from sorl.environments.interface import SuccessTiming
from sorl.environments.pool import STEP_TIMEOUT, EnvironmentPool, Environments
from sorl.evaluate.evaluation import evaluate_policy, success_fields
from sorl.policy import Policy
from sorl.system.files import read_rows, write_json
from sorl.system.progress import Progress


LEAST_CALLS = 20
"""The fewest decisions that are timed, even if they take long."""

_NEEDED = ("training_seed", "inference_steps", "candidates", "successes", "episodes", "return", "length", "outcomes")
"""Columns of each row of a record, of which the first three say what it is about."""

Record = dict[str, Any]
"""A finished pair: `rows`, one for each training seed with every episode, and `latency`, one for each batch size."""


class Subject(NamedTuple):
    """The policies that are played, and their environment."""

    env: str
    success_timing: SuccessTiming
    policies: dict[int, Policy]
    """By training seed."""


class Effort(NamedTuple):
    """The amount of playing and timing."""

    episodes: int
    """Number of episodes for each training seed and budget."""
    seed: int
    """Random seed of the episodes, which are the same for every budget and training seed."""
    batch_sizes: tuple[int, ...]
    """Numbers of observations for which decisions are timed."""
    timing_seconds: float
    """Seconds of timing for each budget and batch size."""


class Grid:
    """The pairs of a grid: finished ones, which are on disk, and missing ones.

    **Arguments:** `directory`, for the results of all grids of a run; `subject`; `effort`; `budgets`, each once;
    `circumstances`, ready for JSON, everything else that the numbers depend on, such as how decisions are made.
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
        digests = {str(seed): policy.digest for seed, policy in subject.policies.items()}
        played = {"env": subject.env, "success_timing": subject.success_timing, "policies": digests}
        self.settings = circumstances | played | effort._asdict()
        """What the numbers depend on, except the pair itself and the code of an own environment, ready for JSON."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        self.directory = directory / digest[:12]
        """The directory of the finished pairs."""

    def finished(self) -> list[Budget]:
        """The finished pairs."""
        return [budget for budget in self.budgets if self._path(budget).exists()]

    def records(self) -> list[Record]:
        """The records of the finished pairs, in the order of the budgets.

        Where one row has a success, all have: a missing one counts as none. The files keep what was reported.
        """
        found = [self._read(budget) for budget in self.finished()]
        if all(row["successes"] is None for record in found for row in record["rows"]):
            return found
        return [record | {"rows": [_with_success(row) for row in record["rows"]]} for record in found]

    def finish(self, workers: int, *, step_timeout: float = STEP_TIMEOUT, quiet: bool = False) -> None:
        """Plays and times the missing pairs; finished pairs are kept even if it raises an exception.

        **Arguments:** `workers` and `step_timeout` as for `sorl.environments.pool.EnvironmentPool`; `quiet`, whether to
        hide the progress.
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
            result = evaluate_policy(
                policy, environments, budget=budget, episodes=self._effort.episodes, seed=self._effort.seed
            )
            rows.append({"training_seed": training_seed} | result.row() | {"outcomes": result.per_episode()})
            score = {result.measure.name: float(result.scores.mean())}
            progress.show({"M^inf": float(budget.inference_steps), "N": float(budget.candidates)} | score)
            progress.advance(self._effort.episodes)
        first = next(iter(self._subject.policies.values()))
        sizes, seconds = self._effort.batch_sizes, self._effort.timing_seconds
        return {"rows": rows, "latency": [time_decisions(first, budget, size, seconds) for size in sizes]}

    def _read(self, budget: Budget) -> Record:
        """The record of a finished pair; raises a `ValueError`, one sentence, if its file is damaged or of another."""
        path, remedy = self._path(budget), "delete it, so that the pair is played again"
        rows, latency = read_rows(path, "rows", _NEEDED, remedy), read_rows(path, "latency", (), remedy)
        wanted = [(seed, budget.inference_steps, budget.candidates) for seed in self._subject.policies]
        if [tuple(row[name] for name in _NEEDED[:3]) for row in rows] != wanted or not latency:
            raise ValueError(f"{path} does not hold that pair for each training seed and its latency; {remedy}.")
        return {"rows": rows, "latency": latency}

    def _path(self, budget: Budget) -> Path:
        return self.directory / f"{budget.name}.json"


def _with_success(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a record with a success: none in every episode if it has no success."""
    if row["successes"] is not None:
        return row
    none = np.zeros(row["episodes"], bool)
    kept = {name: value for name, value in row.items() if name not in ("return_low", "return_high")}
    return kept | success_fields(none) | {"outcomes": row["outcomes"] | {"success": none.tolist()}}


def time_decisions(policy: Policy, budget: Budget, batch_size: int, seconds: float) -> dict[str, Any]:
    """The latency of a deployed policy's decision for `batch_size` observations: median and 95th percentile in ms.

    Calls from numpy to numpy are timed for `seconds`, but at least `LEAST_CALLS` of them, after compilation.
    """
    observations = np.tile(policy.normalisation.standardisation().mean, (batch_size, 1))
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
