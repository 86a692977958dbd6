"""The evaluations of a run while it trains: training waits for each, or continues while a thread plays it.

A thread plays on the CPU, whose actions may differ in the last bits. What the session would write meanwhile it keeps,
and writes after the evaluation's rows, so the order of a run's rows is the same for both.

An evaluation that fails, because a worker died or hung, say, is written as a failure; the next one has a new pool.
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

from sorl.config.options import TrainConfig
from sorl.data.normalisation import Normalisation
from sorl.environments.pool import DEFAULT_WORKERS, PATIENCE, EnvironmentPool, Environments
from sorl.evaluate.evaluation import EvaluationResult, evaluate
from sorl.system.signals import Interrupted, Interruption
from sorl.train import loop


Outcome = TypeVar("Outcome")

Results = dict[int, list[EvaluationResult]]
"""Evaluations of one step, by training seed: one for each budget."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    state: loop.TrainState
    """As it was when the evaluation began."""
    results: Results | Exception
    """Or why there are none."""
    seconds: float
    """Wall-clock time of the evaluation."""
    stall_seconds: float
    """Part of it for which training waited."""

    @property
    def step(self) -> int:
        """Updates before it."""
        return int(self.state.step)


@dataclasses.dataclass(frozen=True)
class _Playing:
    """An evaluation that a thread plays."""

    step: int
    state: loop.TrainState
    """As it was at that step."""
    results: Future[Results]
    stop: threading.Event
    begun: float


class Evaluations:
    """Plays evaluations one at a time, each with the environments of the one before; a context that ends them.

    **Arguments:** `config` of the run; `normalisation` of its data; `interruption`, by which a signal ends an
    evaluation; `write`, which is given each that is finished.
    """

    def __init__(
        self,
        config: TrainConfig,
        normalisation: Normalisation,
        interruption: Interruption,
        write: Callable[[Evaluated], None],
    ):
        self._config, self._normalisation = config, normalisation
        self._interruption, self._write = interruption, write
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
        """The step of the evaluation that a thread plays, or None."""
        return None if self._playing is None else self._playing.step

    def begin(self, state: loop.TrainState, networks: dict[int, Any]) -> None:
        """Plays the policies of these training seeds, as they are at `state`; nothing is written if a signal comes."""
        stop, begun = threading.Event(), time.perf_counter()
        # Made by this thread, so that it can end the processes whatever the other one does.
        pool = self._outcome(self._pool)
        if pool is None:
            return
        if self._overlap and networks and not isinstance(pool, Exception):
            networks = jax.device_put(networks, jax.local_devices(backend="cpu")[0])
            copy = jax.tree.map(lambda leaf: leaf.copy(), state)  # training takes the other one's memory
            results = self._thread.submit(self._play, networks, pool, stop)
            self._playing = _Playing(int(state.step), copy, results, stop, begun)
            return
        found = pool if isinstance(pool, Exception) else self._outcome(lambda: self._play(networks, pool, stop))
        if found is not None:
            seconds = time.perf_counter() - begun
            self._write(Evaluated(state, found, seconds, seconds))

    def _outcome(self, wait: Callable[[], Outcome]) -> Outcome | Exception | None:
        """Calls `wait`; **returns** its result, the exception that it raised, or None if a signal came."""
        try:
            with self._interruption.at_once():
                return wait()
        except Interrupted:
            return None
        except Exception as error:  # of whatever kind: it must not cost the run its updates
            self._close_pool(0.0)
            return error

    def poll(self) -> None:
        """Writes the evaluation that a thread has finished, if any."""
        if self._playing is not None and self._playing.results.done():
            self.finish()

    def finish(self) -> bool:
        """Waits for the evaluation that plays, and writes it.

        **Returns:** whether it is written; it still plays if a signal came meanwhile.
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
        """Ends the evaluation that plays, without a result; **returns** the state that it began at."""
        playing, self._playing = self._playing, None
        if playing is None:
            return None
        playing.stop.set()
        if self._environments is not None:
            self._environments.kill()  # a thread that waits for a worker goes on at once
        playing.results.exception()  # waits
        return playing.state

    def _pool(self) -> Environments:
        """The environments of the evaluation before, or new ones if that failed."""
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

    def _play(self, networks: dict[int, Any], pool: Environments, stop: threading.Event) -> Results:
        return {
            seed: [
                evaluate(
                    self._config.agent,
                    own,
                    pool,
                    normalisation=self._normalisation,
                    budget=budget,
                    episodes=self._config.evaluation.episodes,
                    stop=stop,
                )
                for budget in self._config.budgets(final=False)
            ]
            for seed, own in networks.items()
        }
