"""A training session: compiled chunks of updates, with logs, evaluations and checkpoints between them.

Everything that a resumed run must repeat depends only on the step. Wall-clock time determines only the lengths of
chunks, which never affect results.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from sorl.agents.shared.metrics import SHARED
from sorl.config.options import TrainConfig
from sorl.data import LoadedData
from sorl.policy.seed_record import write_bad_seeds
from sorl.runs import run as runs
from sorl.runs.metrics import MetricLog, Sink, read_metrics
from sorl.runs.versions import record_versions
from sorl.statistics.missing_success import SUCCESS_METRIC
from sorl.system.progress import Progress
from sorl.system.signals import Interruption
from sorl.train import loop, resuming
from sorl.train.background_evaluation import Evaluated, Evaluations, Results
from sorl.train.checkpoints import Checkpoints
from sorl.train.ending import Ending
from sorl.train.failed_evaluations import FailedEvaluations
from sorl.train.hosts import Hosts
from sorl.train.members import Members
from sorl.train.rows import TrainingRows
from sorl.train.trainer import Trainer, initial


CHUNK_SECONDS = 1.0
"""Target length of a chunk, so that a signal is handled within two seconds."""
FIRST_CHUNK = 1
"""Updates of the first chunk, before their speed is known."""


class _Rows(NamedTuple):
    """Rows of one step that are not written yet: metrics by training seed or member, and timings."""

    step: int
    rows: dict[int, dict[str, Any]]
    timings: dict[str, float]


class Session:
    """A run in training: its state, and the files that its results go to.

    **Arguments:** `config`, the run's options; `directory`, the run directory; `data`; `resume`, `from_step` and
    `new_phase`, as in `RunOptions`; `make_sinks`, called with the step that the run resumes from (None for a new run,
    -1 without a checkpoint); `quiet`, whether to hide the progress; `mesh` and `hosts` as for `Trainer`.

    Raises as `sorl.train.resuming.restore` does if the run cannot be resumed; nothing is written then.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: Path,
        data: LoadedData,
        *,
        resume: bool = False,
        from_step: int | None = None,
        new_phase: bool = False,
        make_sinks: Callable[[int | None], Sequence[Sink]] = lambda resume_step: (),
        quiet: bool = False,
        mesh: Mesh | None = None,
        hosts: Hosts | None = None,
    ):
        self.config = config
        self.directory = directory
        self.data = data
        self.trainer = Trainer(config, data.train, mesh, hosts)
        self.members = Members(config, data)
        self._training_seconds = 0.0  # since the last row
        self._aside: set[int] = set()
        # Written after the current evaluation: the checkpoint of its step, and the rows of later steps.
        self._save_evaluated = False
        self._waiting: list[_Rows] = []
        self._score: dict[int, dict[str, float]] = {}  # by step
        self._start = time.perf_counter()
        with ExitStack() as stack:
            stack.callback(self.trainer.close)
            # From here on a signal is recorded, and the run stops at the next point where it can save.
            self.interruption = stack.enter_context(Interruption())
            state = initial(config, data.train)
            # All checks come before the first write, so that a refused run is unchanged.
            restored = None
            if resume:
                restored = resuming.restore(
                    directory, config, data.provenance, state, from_step=from_step, new_phase=new_phase
                )
            self.state = self.trainer.place(state if restored is None else restored)
            resume_step = (-1 if restored is None else self.step) if resume else None
            self.failures = FailedEvaluations(directory, resume_step)
            sinks = make_sinks(resume_step)
            # Move later checkpoints aside before the first write: until then the run is still the earlier training.
            self.checkpoints = stack.enter_context(Checkpoints(directory / "checkpoints"))
            self.checkpoints.set_aside_after(self.step)
            record_versions(directory, config, data.provenance, step=self.step, new_phase=new_phase)
            runs.update_config(directory, config)
            members = {number: member.columns() for number, member in config.members.items()}
            log = MetricLog(directory, resume_step=resume_step, sinks=sinks, order=SHARED, members=members)
            self.log = stack.enter_context(log)
            self.failures.write()
            # On leaving, evaluations end first, and checkpoints and signal handlers last.
            self._logged_step = self.step
            self.rows = TrainingRows(config, data, self.members, read_metrics(directory))
            self.progress = stack.enter_context(Progress(config.updates, self.step, quiet=quiet))
            evaluations = Evaluations(config, self.interruption, self._write_evaluation)
            self.evaluations = stack.enter_context(evaluations)
            self._open = stack.pop_all()

    @property
    def step(self) -> int:
        """Number of updates made."""
        return int(self.state.step)

    @property
    def bad_seeds(self) -> dict[int, int]:
        """The first update with a non-finite loss of each seed or member that is no longer trained."""
        return self.members.bad(self.trainer.first_bad_steps(self.state))

    @property
    def good_seeds(self) -> dict[int, int]:
        """The seeds or members that still train, with their place along the state's leading axis."""
        return self.members.good(self.trainer.first_bad_steps(self.state))

    @property
    def local(self) -> loop.TrainState:
        """The state on this process's first device, where it can be read and saved."""
        return self.trainer.local(self.state)

    def run(self) -> Ending:
        """Trains to the last update, or until a signal or the loss of all seeds stops it, and saves everything."""
        with self._open:
            if self.checkpoints.latest_step() is None:
                self._save(self.local)  # a seed that goes bad before the next checkpoint falls back to this one
            else:
                self._save_policies(self.local)  # the run may have been killed between a checkpoint and its policies
            self._evaluate_if_due()
            for _ in self._chunks():
                self.evaluations.poll()
                self._set_bad_seeds_aside()
                self._log_if_due()
                self._evaluate_if_due()
                self._save_if_due()
            if not self.evaluations.finish():
                # A signal interrupted an evaluation: go back to the state at its start, so that a resume repeats it.
                earlier = self.evaluations.give_up()
                self.state = self.state if earlier is None else self.trainer.place(earlier)
            self._save(self.local)
            for verdict in self.rows.verdicts():
                self.progress.message(verdict)
        # Read only after the checkpoint is on disk, because a signal may arrive until then.
        signal = self.interruption.signal
        if signal is None:
            self.failures.refuse_repeated(self.step)
        return Ending(self.step, None if signal is None else int(signal), self.bad_seeds, self.failures.reasons)

    def _chunks(self) -> Iterator[None]:
        """Trains chunk by chunk; a chunk never crosses a step at which a log, checkpoint or evaluation is due."""
        length = FIRST_CHUNK
        while self.step < self.config.updates and self.good_seeds and not self._must_stop():
            updates = min(length, self._next_stop() - self.step)
            start = time.perf_counter()
            self.state = self.trainer.train(self.state, updates)
            seconds = time.perf_counter() - start
            self._training_seconds += seconds
            length = max(1, int(updates * CHUNK_SECONDS / seconds))
            self.progress.advance(updates)
            yield

    def _must_stop(self) -> bool:
        return self.interruption.signal is not None or self.failures.repeated

    def _next_stop(self) -> int:
        config = self.config
        intervals = [config.log_interval, config.checkpoint_interval, config.evaluation.interval]
        return min([config.updates, *((self.step // every + 1) * every for every in intervals if every)])

    def _set_bad_seeds_aside(self) -> None:
        """Resets each seed that has just become bad to its state at the last checkpoint, where it stays."""
        last = self.checkpoints.latest_step()
        # A seed that became bad before the last checkpoint was reset then, perhaps by an earlier session.
        new = {s: at for s, at in self.bad_seeds.items() if s not in self._aside and last is not None and at >= last}
        # The last checkpoint may still wait for the current evaluation; after a signal the run goes back to its start.
        if not new or not self.evaluations.finish():
            return
        last = self.checkpoints.latest_step()
        self._aside |= new.keys()
        state = self.members.restored(self.local, self.checkpoints.restore(self.local), new)
        self.state = self.trainer.place(state)
        for seed, step in new.items():
            self.progress.message(
                f"{self.config.members[seed].label} is not trained further: its losses were not finite at update "
                f"{step}; it keeps its checkpoint of update {last}. Lower agent.learning_rate, or look at the data."
            )

    def _log_if_due(self) -> None:
        if not self.rows.are_due(self.step):
            return
        logged = self.rows.make(self.local, self.good_seeds)
        for warning in logged.warnings:
            self.progress.message(warning)
        timings = {
            "elapsed_seconds": time.perf_counter() - self._start,
            "training_seconds": self._training_seconds,
            "updates_per_second": (self.step - self._logged_step) / max(self._training_seconds, 1e-9),
            "validation_seconds": logged.validation_seconds,
        }
        if self.evaluations.step is None:
            self._write(self.step, logged.rows, timings)
        else:
            self._waiting.append(_Rows(self.step, logged.rows, timings))
        self._training_seconds, self._logged_step = 0.0, self.step
        self.progress.show(logged.shown)

    def _write(self, step: int, rows: dict[int, dict[str, Any]], timings: dict[str, float]) -> None:
        for seed, row in rows.items():
            self.log.write(step, seed, row)
        self.log.write_timings(step, timings)

    def _evaluate_if_due(self) -> None:
        interval, step = self.config.evaluation.interval, self.step
        if not interval or step == 0 or step % interval or not self.evaluations.finish():
            return
        first = f"evaluation/return/{self.config.budgets(final=False)[0].name}"
        # After a resume, the rows of this step may already be written.
        missing = [seed for seed in self.good_seeds if not self.log.has(step, seed, first)]
        if missing:
            self.evaluations.begin(self.local, {seed: self.members.policy(seed, self.local) for seed in missing})

    def _write_evaluation(self, found: Evaluated) -> None:
        """Writes a finished evaluation, then the checkpoint and rows that waited for it, in order of their steps."""
        if isinstance(found.results, Exception):
            self._note_failure(found.state, found.results)
        else:
            self._write_results(found, found.results)
        if self._save_evaluated:
            self._save(found.state)
        for waiting in self._waiting:
            self._write(*waiting)
        self._save_evaluated, self._waiting = False, []

    def _write_results(self, found: Evaluated, evaluated: Results) -> None:
        self.failures.made_up_for(found.step)
        # A resumed run decides as one that never stopped, because it has dropped the rows of later steps.
        reported = any(result.success is not None for own in evaluated.values() for result in own)
        if reported or self.log.has_any(SUCCESS_METRIC):
            evaluated = {seed: [result.with_success() for result in own] for seed, own in evaluated.items()}
        results = [result for own in evaluated.values() for result in own]
        rows = {
            seed: {name: value for result in own for name, value in result.metrics().items()}
            for seed, own in evaluated.items()
        }
        timings = {"evaluation_seconds": found.seconds, "evaluation_stall_seconds": found.stall_seconds}
        self._write(found.step, rows, timings)
        if results:
            shown = {results[0].measure.name: float(np.mean([result.scores.mean() for result in results]))}
            self.progress.show(shown)
            self._score = {found.step: shown}

    def _note_failure(self, state: loop.TrainState, error: Exception) -> None:
        """Saves the evaluated state, so that a run that stops soon repeats the evaluation on resume."""
        self._save(state)
        reason = self.failures.add(int(state.step), error)
        self.progress.message(
            f"warning: the evaluation at update {int(state.step)} failed and has no row: {reason} The state is saved."
        )

    def _save_if_due(self) -> None:
        """Saves the state if it is due, but after the evaluation of the same step, whose score is saved with it."""
        if self.step % self.config.checkpoint_interval and self.step != self.config.updates:
            return
        if self.evaluations.step == self.step:
            self._save_evaluated = True
        elif self.evaluations.finish():
            self._save(self.local)

    def _save(self, state: loop.TrainState) -> None:
        """Saves the rows first, then the checkpoint that covers them, then the policies of that checkpoint.

        A step that has been saved already, because its evaluation failed, is not saved again.
        """
        start, step = time.perf_counter(), int(state.step)
        if self.checkpoints.latest_step() == step:
            return
        self.log.sync()
        record = resuming.record(self.config, self.data.provenance, self.log.digest())
        self.checkpoints.save(step, state, self._score.get(step), record=record)
        self._save_policies(state)
        self.log.write_timings(step, {"checkpoint_seconds": time.perf_counter() - start})

    def _save_policies(self, state: loop.TrainState) -> None:
        """Writes a policy file for each good seed; a bad seed keeps the file of its last good checkpoint."""
        first_bad_steps = np.asarray(state.first_bad_step)
        write_bad_seeds(self.directory, self.members.bad(first_bad_steps))
        policies = {number: self.members.policy(number, state) for number in self.members.good(first_bad_steps)}
        runs.save_policies(self.directory, self.config, policies, int(state.step))
