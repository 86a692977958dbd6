"""One training session: compiled chunks on an absolute grid of steps, and between them logs, evaluations, checkpoints.

Everything that a resumed run must repeat is decided by the step alone; the clock decides only how long a chunk is, and
that changes nothing but when the session looks up from its work.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sorl import runs, training
from sorl.agents import Budget
from sorl.checkpointing import Checkpoints
from sorl.config import TrainConfig
from sorl.data import LoadedData
from sorl.environment_pool import DEFAULT_WORKERS, EnvironmentPool
from sorl.evaluation import EvaluationResult, evaluate
from sorl.interruption import Interrupted, Interruption
from sorl.logs import MetricLog
from sorl.progress import Progress
from sorl.sinks import Sink


CHUNK_SECONDS = 1.0
"""How long a chunk should take, so that a signal is answered within two."""
FIRST_CHUNK = 1
"""Updates of the first chunk, before their speed is known."""
SHOWN = (
    "critic_loss",
    "value_loss",
    "flow_matching_loss",
    "self_consistency_loss",
    "distillation_loss",
    "noise_prediction_loss",
    "consistency_loss",
    "cloning_loss",
    "q_loss",
)
"""The losses beside the progress bar, where the agent has them."""


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a session ended."""

    step: int
    """Updates made."""
    signal: int | None
    """The signal that stopped it, or None."""
    bad_seeds: dict[int, int]
    """Seeds whose losses were not finite any more, with the first such update."""


class Session:
    """A run under way: its state, and the places that its results go to."""

    def __init__(
        self,
        config: TrainConfig,
        directory: Path,
        data: LoadedData,
        *,
        resume: bool = False,
        make_sinks: Callable[[int | None], Sequence[Sink]] = lambda resume_step: (),
        quiet: bool = False,
    ):
        self.config = config
        self.directory = directory
        self.data = data
        self.mapping: training.SeedMapping = (
            training.default_seed_mapping() if config.seed_mapping == "auto" else config.seed_mapping
        )
        self._environments: EnvironmentPool | None = None
        self._training_seconds = 0.0  # since the last row
        self._aside: set[int] = set()
        self._success: dict[int, float] = {}  # by step
        self._start = time.perf_counter()
        with ExitStack() as stack:
            self.interruption = stack.enter_context(Interruption())
            self.checkpoints = stack.enter_context(Checkpoints(directory / "checkpoints"))
            self.state = training.init(config.agent, data.train, config.seeds, batch_size=config.batch_size)
            last = self.checkpoints.latest_step()
            if last is not None:
                self.state = self.checkpoints.restore(self.state)
            self._logged_step = self.step
            resume_step = (-1 if last is None else last) if resume else None
            sinks = make_sinks(resume_step)
            self.log = stack.enter_context(MetricLog(directory, resume_step=resume_step, sinks=sinks))
            self.progress = stack.enter_context(Progress(config.updates, self.step, quiet=quiet))
            self._open = stack.pop_all()

    @property
    def step(self) -> int:
        """Updates made."""
        return int(self.state.step)

    @property
    def bad_seeds(self) -> dict[int, int]:
        """Seeds that are not trained further, with their first non-finite update."""
        first = np.asarray(self.state.first_bad_step)
        return {seed: int(step) for seed, step in zip(self.config.seeds, first, strict=True) if step >= 0}

    @property
    def good_seeds(self) -> dict[int, int]:
        """Seeds that train, with their place along the state's leading axis."""
        return {seed: index for index, seed in enumerate(self.config.seeds) if seed not in self.bad_seeds}

    def run(self) -> Ending:
        """Trains to the last update, or until a signal comes or no seed is left, and writes everything down."""
        with self._open:
            if self.checkpoints.latest_step() is None:
                self._save()  # what a seed falls back to that goes bad before the next checkpoint
            else:
                self._save_policies()  # a kill may have come between a checkpoint and its policies
            self._evaluate_if_due()
            for _ in self._chunks():
                self._set_bad_seeds_aside()
                self._log_if_due()
                self._evaluate_if_due()
                if self.step % self.config.checkpoint_interval == 0 or self.step == self.config.updates:
                    self._save()
            if self.checkpoints.latest_step() != self.step:
                self._save()
            signal = self.interruption.signal
            return Ending(self.step, None if signal is None else int(signal), self.bad_seeds)

    def _chunks(self) -> Iterator[None]:
        """Trains chunk after chunk, each up to the next step at which something is due."""
        length = FIRST_CHUNK
        while self.step < self.config.updates and self.good_seeds and self.interruption.signal is None:
            updates = min(length, self._next_stop() - self.step)
            start = time.perf_counter()
            self.state = training.run_chunk(
                self.config.agent,
                self.state,
                self.data.train,
                jnp.int32(updates),
                batch_size=self.config.batch_size,
                log_interval=self.config.log_interval,
                seed_mapping=self.mapping,
            )
            jax.block_until_ready(self.state)
            seconds = time.perf_counter() - start
            self._training_seconds += seconds
            length = max(1, int(updates * CHUNK_SECONDS / seconds))
            self.progress.advance(updates)
            yield

    def _next_stop(self) -> int:
        config = self.config
        intervals = [config.log_interval, config.checkpoint_interval, config.evaluation.interval]
        return min([config.updates, *((self.step // every + 1) * every for every in intervals if every)])

    def _set_bad_seeds_aside(self) -> None:
        """Gives each seed that just went bad its state of the last checkpoint, where it stays."""
        last = self.checkpoints.latest_step()
        # One that went bad before the last checkpoint was set aside then, perhaps by the session before this one.
        new = {s: at for s, at in self.bad_seeds.items() if s not in self._aside and last is not None and at >= last}
        if not new:
            return
        self._aside |= new.keys()
        good = self.checkpoints.restore(self.state)
        places = jnp.asarray([self.config.seeds.index(seed) for seed in new])
        agent = jax.tree.map(lambda now, then: now.at[places].set(then[places]), self.state.agent, good.agent)
        self.state = dataclasses.replace(self.state, agent=agent)
        for seed, step in new.items():
            self.progress.message(
                f"Seed {seed} is not trained further: its losses were not finite at update {step}; it keeps its "
                f"checkpoint of update {last}. Lower agent.learning_rate, or look at the data."
            )

    def _log_if_due(self) -> None:
        if self.step % self.config.log_interval or self.step == 0:
            return
        start = time.perf_counter()
        means = {name: np.asarray(sums) / self.config.log_interval for name, sums in self.state.metric_sums.items()}
        held_out = self._validation()
        validation_seconds = time.perf_counter() - start
        for seed, index in self.good_seeds.items():
            row = {f"training/{name}": mean[index] for name, mean in means.items()}
            row |= {f"validation/{name}": loss[index] for name, loss in held_out.items()}
            self.log.write(self.step, seed, row)
        seconds = self._training_seconds
        timings = {
            "elapsed_seconds": time.perf_counter() - self._start,
            "training_seconds": seconds,
            "updates_per_second": (self.step - self._logged_step) / max(seconds, 1e-9),
            "validation_seconds": validation_seconds,
        }
        self.log.write_timings(self.step, timings)
        self._training_seconds, self._logged_step = 0.0, self.step
        places = list(self.good_seeds.values())
        self.progress.show({name: float(means[name][places].mean()) for name in SHOWN if name in means and places})

    def _validation(self) -> dict[str, np.ndarray]:
        if self.data.validation is None:
            return {}
        losses = training.validation_losses(
            self.config.agent, self.state, self.data.validation, batch_size=self.config.batch_size
        )
        return {name: np.asarray(loss) for name, loss in losses.items()}

    def _evaluate_if_due(self) -> None:
        evaluation = self.config.evaluation
        if not evaluation.interval or self.step == 0 or self.step % evaluation.interval:
            return
        budgets = self.config.budgets(final=False)
        missing = [
            seed
            for seed in self.good_seeds
            if not self.log.has(self.step, seed, f"evaluation/success/{budgets[0].name}")
        ]
        start = time.perf_counter()
        try:
            with self.interruption.at_once():
                results = {seed: self._evaluate(seed, budgets) for seed in missing}
        except Interrupted:
            return  # on resume its rows are missing, and it is done again
        for seed, found in results.items():
            self.log.write(self.step, seed, {name: value for result in found for name, value in _row(result).items()})
        self.log.write_timings(self.step, {"evaluation_seconds": time.perf_counter() - start})
        if results:
            shown = np.mean([result.success.mean() for found in results.values() for result in found])
            self.progress.show({"success": float(shown)})
            self._success = {self.step: float(shown)}

    def _evaluate(self, seed: int, budgets: Sequence[Budget]) -> list[EvaluationResult]:
        return [
            evaluate(
                self.config.agent,
                self._networks(seed),
                self.environments,
                normalisation=self.data.normalisation,
                budget=budget,
                episodes=self.config.evaluation.episodes,
            )
            for budget in budgets
        ]

    @property
    def environments(self) -> EnvironmentPool:
        """Workers that simulate, started when first needed."""
        if self._environments is None:
            assert self.config.env is not None
            evaluation = self.config.evaluation
            self._environments = self._open.enter_context(
                EnvironmentPool(
                    self.config.env,
                    workers=min(evaluation.workers or DEFAULT_WORKERS, evaluation.episodes),
                    success_timing=evaluation.success_timing,
                )
            )
        return self._environments

    def _networks(self, seed: int) -> Any:
        index = self.config.seeds.index(seed)
        return self.config.agent.policy(jax.tree.map(lambda leaf: leaf[index], self.state.agent))

    def _save(self) -> None:
        """Rows first, then the checkpoint that stands for them, then the policies that are made from it."""
        start = time.perf_counter()
        self.log.sync()
        success = self._success.get(self.step)
        self.checkpoints.save(self.step, self.state, None if success is None else {"success": success})
        self._save_policies()
        self.log.write_timings(self.step, {"checkpoint_seconds": time.perf_counter() - start})

    def _save_policies(self) -> None:
        """One file for each seed that trains; one that went bad keeps its file, that of its last good checkpoint."""
        networks = {seed: self._networks(seed) for seed in self.good_seeds}
        runs.save_policies(self.directory, self.config, networks, self.data.normalisation, self.step)


def _row(result: EvaluationResult) -> dict[str, float]:
    figures = {
        "success": result.success.mean(),
        "return": result.returns.mean(),
        "episode_length": result.lengths.mean(),
    }
    return {f"evaluation/{name}/{result.budget.name}": float(value) for name, value in figures.items()}
