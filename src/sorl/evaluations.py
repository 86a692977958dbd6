"""The evaluations of a run while it trains: each at once, or in a thread while training goes on.

In what order a run writes does not depend on which: rows of later steps, and the checkpoint of its own step, wait for
those of an evaluation that still plays. It plays on the CPU then, whose actions may differ in the last bits.
"""

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import jax

from sorl import training
from sorl.config import TrainConfig
from sorl.environment_pool import DEFAULT_WORKERS, EnvironmentPool, Environments
from sorl.evaluation import EvaluationResult, evaluate
from sorl.interruption import Interrupted, Interruption
from sorl.normalisation import Normalisation


Results = dict[int, list[EvaluationResult]]
"""Evaluations of one step, by training seed: one for each budget."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    step: int
    results: Results
    seconds: float
    """From its beginning to its end."""
    stall_seconds: float
    """For which training waited."""


@dataclasses.dataclass(frozen=True)
class _Playing:
    """An evaluation that a thread plays."""

    step: int
    state: training.TrainState
    """As it was at that step."""
    results: Future[Results]
    stop: threading.Event
    begun: float
    later: list[Callable[[], None]]
    """What is written after its rows, in this order."""


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
        self._open = ExitStack()
        self._thread = self._open.enter_context(ThreadPoolExecutor(max_workers=1))

    def __enter__(self) -> "Evaluations":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.give_up()
        self._open.close()

    @property
    def step(self) -> int | None:
        """The step of the evaluation that a thread plays, or None."""
        return None if self._playing is None else self._playing.step

    def begin(self, state: training.TrainState, networks: dict[int, Any]) -> None:
        """Plays the policies of these training seeds, as they are at `state`; a signal leaves it unwritten."""
        stop, begun, step = threading.Event(), time.perf_counter(), int(state.step)
        if self._overlap and networks:
            self._pool()  # made here, and not by the thread
            networks = jax.device_put(networks, jax.local_devices(backend="cpu")[0])
            copy = jax.tree.map(lambda leaf: leaf.copy(), state)  # training takes the other one's memory
            results = self._thread.submit(self._play, networks, stop)
            self._playing = _Playing(step, copy, results, stop, begun, [])
            return
        try:
            with self._interruption.at_once():
                found = self._play(networks, stop)
        except Interrupted:
            return
        seconds = time.perf_counter() - begun
        self._write(Evaluated(step, found, seconds, seconds))

    def in_order(self, write: Callable[[training.TrainState | None], None]) -> None:
        """Calls `write` now with None, or after the rows of the evaluation that plays with the state it began at."""
        playing = self._playing
        if playing is None:
            write(None)
        else:
            playing.later.append(lambda: write(playing.state))

    def poll(self) -> None:
        """Writes the evaluation that a thread has finished, if any, and what waited for it."""
        if self._playing is not None and self._playing.results.done():
            self.finish()

    def finish(self) -> bool:
        """Waits for the evaluation that plays, and writes it and what waited for it.

        **Returns:** whether none plays any more: one goes on if a signal came meanwhile.
        """
        playing, start = self._playing, time.perf_counter()
        if playing is None:
            return True
        try:
            with self._interruption.at_once():
                found = playing.results.result()
        except Interrupted:
            return False
        self._playing = None
        now = time.perf_counter()
        self._write(Evaluated(playing.step, found, now - playing.begun, now - start))
        for write in playing.later:
            write()
        return True

    def give_up(self) -> training.TrainState | None:
        """Ends the evaluation that plays, and drops what waited for it; **returns** the state that it began at."""
        playing, self._playing = self._playing, None
        if playing is None:
            return None
        playing.stop.set()
        playing.results.exception()  # waits
        return playing.state

    def _pool(self) -> Environments:
        if self._environments is None:
            env, options = self._config.env, self._config.evaluation
            assert env is not None  # the configuration has no evaluations otherwise
            workers = min(options.workers or DEFAULT_WORKERS, options.episodes)
            pool = EnvironmentPool(env, workers=workers, success_timing=options.success_timing)
            self._environments = self._open.enter_context(pool)
        return self._environments

    def _play(self, networks: dict[int, Any], stop: threading.Event) -> Results:
        return {
            seed: [
                evaluate(
                    self._config.agent,
                    own,
                    self._pool(),
                    normalisation=self._normalisation,
                    budget=budget,
                    episodes=self._config.evaluation.episodes,
                    stop=stop,
                )
                for budget in self._config.budgets(final=False)
            ]
            for seed, own in networks.items()
        }
