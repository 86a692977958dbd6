"""The evaluations of a run during training: training waits for each, or continues while a thread plays it.

The thread plays on the CPU, on which actions may differ in the last bits. Meanwhile the session keeps its rows, and
writes them after those of the evaluation, so the order of a run's rows is the same in both cases.

A failed evaluation, for instance because a worker died or hung, is recorded; the next one starts a new pool.
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from sorl.config.options import TrainConfig
from sorl.environments.pool import DEFAULT_WORKERS, EnvironmentPool, Environments
from sorl.environments.processes import PATIENCE
from sorl.evaluate.evaluation import EvaluationResult, evaluate_policy
from sorl.policy import Policy
from sorl.system.signals import Interrupted, Interruption
from sorl.train import loop


Outcome = TypeVar("Outcome")

Results = dict[int, list[EvaluationResult]]
"""Evaluations of one step, by training seed or member: one for each budget."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    state: loop.TrainState
    """The state at the start of the evaluation."""
    results: Results | Exception
    """The results, or the exception if it failed."""
    seconds: float
    """Wall-clock time of the evaluation."""
    stall_seconds: float
    """The part of `seconds` for which training waited."""

    @property
    def step(self) -> int:
        """The number of updates of the evaluated policies."""
        return int(self.state.step)


@dataclasses.dataclass(frozen=True)
class _Playing:
    """An evaluation that the thread is playing."""

    step: int
    state: loop.TrainState
    """The state at that step."""
    results: Future[Results]
    stop: threading.Event
    begun: float


class Evaluations:
    """Plays evaluations one at a time, with the same environments; leaving this context ends them.

    **Arguments:** `config`, the run's options; `interruption`, by which a signal ends an evaluation; `write`, called
    with each finished evaluation.
    """

    def __init__(self, config: TrainConfig, interruption: Interruption, write: Callable[[Evaluated], None]):
        self._config, self._interruption, self._write = config, interruption, write
        wanted = config.evaluation.overlap
        self._overlap = jax.default_backend() != "cpu" if wanted is None else wanted
        self._environments: Environments | None = None
        self._playing: _Playing | None = None
        self._thread = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> "Evaluations":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.give_up()
        self._thread.shutdown()
        self._close_pool(0.0 if any(exception) or self._interruption.signal is not None else PATIENCE)

    @property
    def step(self) -> int | None:
        """The step of the evaluation that the thread is playing, or None."""
        return None if self._playing is None else self._playing.step

    def begin(self, state: loop.TrainState, policies: dict[int, Policy]) -> None:
        """Evaluates policies of `state`, given by training seed or member; writes nothing if a signal interrupts it."""
        stop, begun = threading.Event(), time.perf_counter()
        # This thread creates the pool, so that it can end the worker processes at any time.
        pool = self._outcome(self._pool)
        if pool is None:
            return
        if self._overlap and policies and not isinstance(pool, Exception):
            cpu = jax.local_devices(backend="cpu")[0]
            policies = {seed: policy.on(cpu) for seed, policy in policies.items()}
            copy = jax.tree.map(lambda leaf: leaf.copy(), state)  # training donates the memory of `state`
            results = self._thread.submit(self._play, policies, pool, stop)
            self._playing = _Playing(int(state.step), copy, results, stop, begun)
            return
        found = pool if isinstance(pool, Exception) else self._outcome(lambda: self._play(policies, pool, stop))
        if found is not None:
            seconds = time.perf_counter() - begun
            self._write(Evaluated(state, found, seconds, seconds))

    def _outcome(self, wait: Callable[[], Outcome]) -> Outcome | Exception | None:
        """Calls `wait`; **returns** its result, the exception that it raised, or None if a signal interrupted it."""
        try:
            with self._interruption.at_once():
                return wait()
        except Interrupted:
            return None
        except Exception as error:  # of any kind, because a failed evaluation must not end the training
            self._close_pool(0.0)
            return error

    def poll(self) -> None:
        """Writes the evaluation if the thread has finished it."""
        if self._playing is not None and self._playing.results.done():
            self.finish()

    def finish(self) -> bool:
        """Waits for the current evaluation, if there is one, and writes it.

        **Returns:** False if a signal interrupted the wait, in which case the evaluation still runs; else True.
        """
        playing, start = self._playing, time.perf_counter()
        if playing is None:
            return True
        found = self._outcome(playing.results.result)
        if found is None:
            return False
        self._playing = None
        now = time.perf_counter()
        self._write(Evaluated(playing.state, found, now - playing.begun, now - start))
        return True

    def give_up(self) -> loop.TrainState | None:
        """Ends the current evaluation without a result; **returns** the state at its start, or None without one."""
        playing, self._playing = self._playing, None
        if playing is None:
            return None
        playing.stop.set()
        if self._environments is not None:
            self._environments.kill()  # wakes a thread that waits for a worker
        playing.results.exception()  # waits for the thread
        return playing.state

    def _pool(self) -> Environments:
        """The environments of the previous evaluation, or new ones if that failed."""
        if self._environments is None:
            env, options = self._config.env, self._config.evaluation
            assert env is not None  # the configuration has no evaluations otherwise
            self._environments = EnvironmentPool(
                env,
                workers=min(options.workers or DEFAULT_WORKERS, options.episodes),
                success_timing=options.success_timing,
                step_timeout=options.step_timeout,
            )
        return self._environments

    def _close_pool(self, patience: float) -> None:
        environments, self._environments = self._environments, None
        if environments is not None:
            environments.close(patience)

    def _play(self, policies: dict[int, Policy], pool: Environments, stop: threading.Event) -> Results:
        episodes, budgets = self._config.evaluation.episodes, self._config.budgets(final=False)
        return {
            seed: [evaluate_policy(policy, pool, budget=budget, episodes=episodes, stop=stop) for budget in budgets]
            for seed, policy in policies.items()
        }
