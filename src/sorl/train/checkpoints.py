"""Checkpoints of a training state: asynchronous, atomic, verified bit for bit. Only this file calls Orbax."""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import orbax.checkpoint.checkpoint_managers as policies
from jaxtyping import PyTree

from sorl.train import checkpoint_content as content, orbax_noise
from sorl.train.checkpoint_content import CheckpointError as CheckpointError


BEST_METRICS = ("success", "return")
"""The metrics that rank checkpoints; higher is better. The first one that a checkpoint has is its score. A checkpoint
with a success is better than any without, because a return without a success comes from an environment that reports a
success only when it succeeds."""
_DELETED = "deleted"
_REPLACED = "replaced"
_AFTER_SPACE = "free some space and give the command again, with --resume if there was a checkpoint before"
_DISK_IS_FULL = ("RESOURCE_EXHAUSTED", "No space left", "Disk quota exceeded")
"""Parts of TensorStore's and the system's messages that a full disk causes."""


def _alone() -> ocp.options.MultiprocessingOptions:
    """Orbax's options by which only this process saves, so that no other has to take part or to see the directory."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"sorl-{own}"
    )


def _score(metrics: Mapping[str, float] | None) -> dict[str, float] | None:
    found = {name: float((metrics or {}).get(name, math.nan)) for name in BEST_METRICS}
    return next(({name: score} for name, score in found.items() if math.isfinite(score)), None)


class Checkpoints:
    """The checkpoints of one run: those of the latest steps, and those with the best score.

    A checkpoint gets its final name only when it is complete, so earlier checkpoints stay usable if the process is
    killed at any moment. Saving copies the state to the host before it returns, and writes in the background.

    **Arguments:**

    - `directory`: created if missing.
    - `keep_latest`: number of the latest checkpoints to keep, >= 1; with two, one remains if the last is damaged.
    - `keep_best`: number of the best checkpoints to keep in addition, >= 0; of equally good ones, the later.
    - `read_only`: only restore, and change nothing in the directory, so that a training may continue to write there.

    **Raises:** `CheckpointError`, one sentence, from every method.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, keep_latest: int = 2, keep_best: int = 1, read_only: bool = False
    ):
        if keep_latest < 1 or keep_best < 0:
            raise ValueError(f"keep_latest is {keep_latest} and keep_best {keep_best}; give at least 1 and 0.")
        if Path(directory).is_symlink() and not read_only:
            raise CheckpointError(f"{directory} is a symbolic link; put the directory itself in its place.")
        self._directory = Path(directory).resolve()
        self._read_only = read_only
        self._closed, self._saved = False, False
        if read_only and not self._directory.is_dir():
            raise CheckpointError(f"There are no checkpoints in {self._directory}: no such directory.")
        orbax_noise.silence()
        with self._clear_errors(f"The checkpoints in {self._directory} cannot be opened"):
            self._check_scores()
            self._manager = self._open(keep_latest, keep_best)
            self._remove(_DELETED)

    def _open(self, keep_latest: int, keep_best: int) -> ocp.CheckpointManager:
        def score(metrics: Any) -> Any:
            # Orbax only sorts by the score, which may be a pair.
            return next((-place, metrics[name]) for place, name in enumerate(BEST_METRICS) if name in metrics)

        latest = policies.LatestN(keep_latest)
        if not self._read_only:
            self._directory.mkdir(parents=True, exist_ok=True)
        # By default (`keep_checkpoints_without_metrics`), every checkpoint without a score would be kept forever.
        best = policies.BestN(get_metric_fn=score, n=keep_best, keep_checkpoints_without_metrics=False)
        # `best_fn` as well as the policy, because without it Orbax neither writes scores to disk nor reads them.
        options = ocp.CheckpointManagerOptions(
            best_fn=score,
            preservation_policy=policies.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=not self._read_only,
            # Old checkpoints are renamed before their removal, because only a rename is atomic.
            todelete_subdir=None if self._read_only else _DELETED,
            # In the background, a directory that cannot be created leaves threads that wait five minutes for it.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            save_root_metadata=False,
            multiprocessing_options=_alone(),
            create=False,  # Orbax creates no directory for one process of several
            read_only=self._read_only,
        )
        return ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint or are being saved, in order."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The last step that was saved or is being saved; None if there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the highest score; None if no checkpoint has one."""
        return self._manager.best_step()

    def save(
        self,
        step: int,
        state: PyTree,
        metrics: Mapping[str, float] | None = None,
        *,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves a state; its arrays may be donated or changed as soon as this returns.

        **Arguments:** `step`, the number of updates made, higher than that of the previous save; `state`, a pytree of
        arrays, which may be typed keys; `metrics` (the score is the first of `BEST_METRICS` that is finite in them);
        `record`, other information about the state, ready for JSON.

        **Raises:** `CheckpointError`, also if the *previous* save failed in the background.
        """
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise CheckpointError(
                f"The state of step {step} was not saved: {self._directory} holds step {latest} already; "
                "save each step once, in order."
            )
        self.wait()
        with self._clear_errors(f"The checkpoint of step {step} in {self._directory} was not saved"):
            arrays, leaves = content.to_host(state)
            description = ocp.args.JsonSave(content.describe(leaves, record))
            items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), description=description)
            self._manager.save(step, args=items, metrics=_score(metrics), force=True)
            self._saved = True

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """Reads a state back, bit for bit.

        **Arguments:** `template`, a pytree of arrays or `jax.ShapeDtypeStruct`s with the expected structure, shapes and
        dtypes; `step`, or None for the latest.

        **Returns:** the state. Its arrays are numpy arrays where the template's are, else JAX arrays, with the sharding
        or device that the template's arrays are committed to.

        **Raises:** `CheckpointError` if there is no such checkpoint, if its format is unknown, if it does not match the
        template, or if its content is damaged.
        """
        step = self._existing(step)
        expected = {content.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(template)}
        with self._reading(step):
            found = self._description(step)["leaves"]
            content.compare(found, expected, self._name(step))
            arrays = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
            content.check_arrays(found, arrays)
            leaves = [
                content.to_device(arrays.get(path), leaf, found[path].get("key")) for path, leaf in expected.items()
            ]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def record(self, step: int | None = None) -> dict[str, Any] | None:
        """The record saved with the state of `step` (None: the latest); None if it was saved without one.

        **Raises:** `CheckpointError` as `restore` does.
        """
        step = self._existing(step)
        with self._reading(step):
            return self._description(step).get("record")

    def set_aside_after(self, step: int) -> None:
        """Moves the checkpoints of later steps aside; they are deleted once the next checkpoint is saved."""
        replaced, later_steps = self._directory / _REPLACED, [found for found in self.steps() if found > step]
        if not later_steps:
            return
        self._saved = False
        with self._clear_errors(f"The checkpoints after step {step} in {self._directory} cannot be set aside"):
            replaced.mkdir(exist_ok=True)
            # The last one first, so that after a kill the remaining checkpoints still belong to one training.
            for later in reversed(later_steps):
                if (replaced / str(later)).exists():
                    shutil.rmtree(replaced / str(later))
                os.replace(self._directory / str(later), replaced / str(later))
            self._manager.reload()

    def wait(self) -> None:
        """Waits until everything saved is on disk; raises a `CheckpointError` if that failed."""
        with self._clear_errors(f"The last checkpoint in {self._directory} was not saved"):
            self._manager.wait_until_finished()
            self._remove(_DELETED)
            if self._saved:
                self._remove(_REPLACED)

    def close(self) -> None:
        """Waits until everything is on disk, and releases the directory; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self.wait()
        finally:
            with self._clear_errors(f"The checkpoints in {self._directory} cannot be closed"):
                self._manager.close()

    def _check_scores(self) -> None:
        """Raises a `CheckpointError` that names a damaged file of scores, because Orbax's own error does not."""
        for path in self._directory.glob("*/metrics/metrics"):
            try:
                found = json.loads(path.read_bytes())
                scores = [found[name] for name in BEST_METRICS if name in found]
                damaged = not scores or not all(isinstance(score, int | float) for score in scores)
            except (OSError, ValueError, TypeError, KeyError, RecursionError):
                damaged = path.parent.parent.name.isdecimal()
            if damaged:
                raise CheckpointError(
                    f"{path} is damaged: a JSON object with {' or '.join(BEST_METRICS)} was expected; remove "
                    "it, as it only tells which checkpoint is the best."
                )

    def _remove(self, name: str) -> None:
        directory = self._directory / name
        if not self._read_only and directory.exists():
            shutil.rmtree(directory)

    def _existing(self, step: int | None) -> int:
        self.wait()
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"There is no checkpoint in {self._directory}.")
        if step is not None and step not in steps:
            found = ", ".join(str(s) for s in steps)
            raise CheckpointError(f"There is no checkpoint of step {step} in {self._directory}; it holds step {found}.")
        return steps[-1] if step is None else step

    def _description(self, step: int) -> dict[str, Any]:
        item = ocp.args.Composite(description=ocp.args.JsonRestore())
        description = self._manager.restore(step, args=item)["description"]
        return content.check_description(description, self._name(step))

    def _name(self, step: int) -> str:
        return f"The checkpoint of step {step} in {self._directory}"

    def _reading(self, step: int):
        before = [found for found in self.steps() if found < step]
        remedy = (
            f"continue from the one before it with --resume --from-step {before[-1]}"
            if before
            else "restore it from a copy, or train again"
        )
        return self._clear_errors(f"{self._name(step)} is damaged", remedy)

    @contextmanager
    def _clear_errors(self, failure: str, remedy: str = "check the disk") -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        # Orbax, TensorStore and the file system raise many classes; each becomes one sentence, with its cause attached.
        except Exception as error:
            reason = _reason(error)
            if any(words in str(error) for words in _DISK_IS_FULL):
                reason, remedy = "the disk is full", _AFTER_SPACE
            raise CheckpointError(f"{failure} ({reason}); {remedy}.") from error


def _reason(error: Exception) -> str:
    # TensorStore's messages end with a long specification of the driver.
    first = (str(error) or type(error).__name__).strip().splitlines()[0].split(" [tensorstore_spec=")[0]
    shortened = first if len(first) < 160 else f"{first[:50]} .. {first[-100:]}"
    return f"it has no {shortened}" if isinstance(error, KeyError) else shortened.rstrip(".")
