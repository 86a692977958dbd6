"""Checkpoints of a training state: asynchronous, atomic, checked bit for bit. The one place that knows Orbax."""

import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import orbax.checkpoint.checkpoint_managers as policies
from jaxtyping import PyTree


FORMAT_VERSION = 1

_DELETED = "deleted"


class CheckpointError(Exception):
    """A checkpoint could not be written, or is not there, damaged, or made by something else than what reads it."""


class Checkpoints:
    """The checkpoints of one run: of the latest steps, and of those with the best score.

    A checkpoint appears under its final name only when it is whole: a process killed at any moment leaves the ones
    before it usable. Saving copies the state to the host before it returns, and writes in the background.

    **Arguments:**

    - `directory`: made if it is missing.
    - `keep_latest`: how many of the latest checkpoints to keep, >= 1.
    - `keep_best`: how many of the best to keep besides, >= 0; of equally good ones the later.
    - `best_metric`: the metric that ranks them; higher is better.
    - `read_only`: only restore; leaves the directory alone, so that a running training may go on writing there.

    **Raises:** `CheckpointError`, one sentence, from every method.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep_latest: int = 1,
        keep_best: int = 1,
        best_metric: str = "success",
        read_only: bool = False,
    ):
        if keep_latest < 1 or keep_best < 0:
            raise ValueError(f"keep_latest is {keep_latest} and keep_best {keep_best}; give at least 1 and 0.")
        self._directory = Path(directory).resolve()
        self._best_metric = best_metric
        self._read_only = read_only
        self._closed = False
        if read_only and not self._directory.is_dir():
            raise CheckpointError(f"There are no checkpoints in {self._directory}: no such directory.")
        with self._clear_errors("Opening the checkpoints"):
            self._manager = self._open(keep_latest, keep_best)
            self._remove_deleted()

    def _open(self, keep_latest: int, keep_best: int) -> ocp.CheckpointManager:
        def score(metrics: Any) -> float:
            return metrics[self._best_metric]

        latest = policies.LatestN(keep_latest)
        # Without `keep_checkpoints_without_metrics=False` each checkpoint that has no score would be kept forever.
        best = policies.BestN(get_metric_fn=score, n=keep_best, keep_checkpoints_without_metrics=False)
        # `best_fn` as well as the policy: Orbax writes scores to disk, and finds them again, only where it is set.
        options = ocp.CheckpointManagerOptions(
            best_fn=score,
            preservation_policy=policies.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=not self._read_only,
            # A rename is atomic, the removal of a directory is not: a kill never leaves half of an old checkpoint.
            todelete_subdir=None if self._read_only else _DELETED,
            # Made in the background, a directory that cannot be made leaves threads that wait five minutes for it.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            save_root_metadata=False,
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
        """The last step that was saved (or is being saved); None if there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step with the highest score; None if no checkpoint has one."""
        return self._manager.best_step()

    def save(self, step: int, state: PyTree, metrics: Mapping[str, float] | None = None) -> None:
        """Saves a state; its arrays may be donated or changed as soon as this returns.

        **Arguments:** `step`, the number of updates made, higher than at the save before; `state`, arrays only, typed
        keys among them if need be; `metrics`, of which `best_metric`, where it is there and finite, is the score.

        **Raises:** `CheckpointError`, also when the save *before* this one failed in the background.
        """
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise CheckpointError(
                f"The state of step {step} was not saved: {self._directory} holds step {latest} already; "
                "save each step once, in order."
            )
        self.wait()
        with self._clear_errors(f"Saving step {step}"):
            arrays, description = _to_host(state)
            items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), description=ocp.args.JsonSave(description))
            self._manager.save(step, args=items, metrics=self._score(metrics), force=True)

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """Reads a state back, bit for bit.

        **Arguments:** `template`, a pytree of arrays or `jax.ShapeDtypeStruct`s with the structure, shapes and types
        that are expected; `step`, or None for the latest.

        **Returns:** the state, where the template has its arrays: on the device (a sharding or a device that the
        template is committed to is kept), or in numpy where the template is numpy.

        **Raises:** `CheckpointError` if there is no such checkpoint, if its format is unknown, if it holds something
        else than the template, or if its content is damaged.
        """
        self.wait()
        step = self._existing(step)
        description = self._description(step)
        expected = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(template)}
        with self._clear_errors(f"Reading step {step}"):
            found = description["leaves"]
            self._compare(step, found, expected)
            arrays = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
            self._check_content(step, found, arrays)
            leaves = [_to_device(arrays.get(path), leaf, found[path].get("key")) for path, leaf in expected.items()]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def wait(self) -> None:
        """Returns when everything saved is on disk; raises what went wrong on the way."""
        with self._clear_errors("Saving the last checkpoint"):
            self._manager.wait_until_finished()
            self._remove_deleted()

    def close(self) -> None:
        """Waits, then lets go of the directory. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self.wait()
        finally:
            with self._clear_errors("Closing the checkpoints"):
                self._manager.close()

    def _score(self, metrics: Mapping[str, float] | None) -> dict[str, float] | None:
        score = (metrics or {}).get(self._best_metric, math.nan)
        return {self._best_metric: float(score)} if math.isfinite(score) else None

    def _remove_deleted(self) -> None:
        deleted = self._directory / _DELETED
        if not self._read_only and deleted.exists():
            shutil.rmtree(deleted)

    def _existing(self, step: int | None) -> int:
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"There is no checkpoint in {self._directory}.")
        if step is not None and step not in steps:
            found = ", ".join(str(s) for s in steps)
            raise CheckpointError(f"There is no checkpoint of step {step} in {self._directory}; it holds step {found}.")
        return steps[-1] if step is None else step

    def _description(self, step: int) -> dict[str, Any]:
        with self._clear_errors(f"Reading the description of step {step}"):
            item = ocp.args.Composite(description=ocp.args.JsonRestore())
            description = self._manager.restore(step, args=item)["description"]
            version = description["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"The checkpoint of step {step} in {self._directory} has format version {version}, and version "
                f"{FORMAT_VERSION} was expected; read it with the release of sorl that wrote it."
            )
        return description

    def _compare(self, step: int, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        differences = [
            f"{path} is {found[path]['type'] if path in found else 'missing'} and "
            f"{_type(expected[path]) if path in expected else 'nothing'} was expected"
            for path in sorted(found.keys() | expected.keys())
            if path not in found or path not in expected or found[path]["type"] != _type(expected[path])
        ]
        if differences:
            others = f" (one of {len(differences)} differences)" if len(differences) > 1 else ""
            raise CheckpointError(
                f"The checkpoint of step {step} in {self._directory} does not fit: {differences[0]}{others}; "
                "restore it with the configuration that it was made with."
            )

    def _check_content(self, step: int, leaves: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        for path, leaf in leaves.items():
            if path in arrays and _checksum(arrays[path]) != leaf["crc32"]:
                raise CheckpointError(
                    f"The checkpoint of step {step} in {self._directory} is damaged: {path} differs from what was "
                    "saved; restore another step, or a copy."
                )

    @contextmanager
    def _clear_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        # Orbax, TensorStore and the file system raise many kinds; each is told in one sentence, its cause attached.
        except Exception as error:
            cause = (str(error) or type(error).__name__).splitlines()[0][:300]
            raise CheckpointError(
                f"{action} in {self._directory} failed ({cause}); check the disk, and that the files are whole."
            ) from error


def _to_host(state: PyTree) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Copies of a state's arrays by path, and what is needed to check them when they are read again."""
    with_paths = [(_path(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]
    for path, leaf in with_paths:
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise CheckpointError(
                f"The state holds {path}, of type {type(leaf).__name__}, and only arrays can be saved; filter it out."
            )
    # Not `jax.device_get`, whose views of a CPU's memory would hold what is about to be donated.
    copies = [np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf) for _, leaf in with_paths]
    leaves = {}
    for (path, leaf), copy in zip(with_paths, copies, strict=True):
        leaves[path] = {"type": _type(leaf), "crc32": _checksum(copy)}
        if _is_key(leaf):
            leaves[path]["key"] = str(jax.random.key_impl(leaf))
    # Orbax refuses arrays without elements; their type in the description says all about them.
    arrays = {path: copy for (path, _), copy in zip(with_paths, copies, strict=True) if copy.size > 0}
    return arrays, {"format_version": FORMAT_VERSION, "leaves": leaves}


def _to_device(array: np.ndarray | None, template: Any, key: str | None) -> Any:
    """A restored array in the form of its template; `key` names the generator where it is a typed key."""
    if array is None:
        data = jax.eval_shape(jax.random.key_data, template) if key else template
        array = np.zeros(data.shape, data.dtype)
    if isinstance(template, np.ndarray):
        return array
    committed = getattr(template, "committed", True)
    value = jax.random.wrap_key_data(jnp.asarray(array), impl=key) if key else array
    return jax.device_put(value, template.sharding if committed else None)


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path) or "state"


def _type(leaf: Any) -> str:
    """For example `float32[3,4]`, or `key<fry>[2]` for typed keys."""
    return f"{leaf.dtype}[{','.join(str(size) for size in leaf.shape)}]"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _checksum(array: np.ndarray) -> int:
    # Neither Orbax nor TensorStore notices a flipped bit in an array's data.
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _silence(package: str) -> Callable[[logging.LogRecord], bool]:
    """A filter that drops what a package tells of its progress; its errors pass."""
    return lambda record: record.levelno >= logging.ERROR or f"{os.sep}{package}{os.sep}" not in record.pathname


# Orbax logs through absl's logger, dozens of lines a save, and leaves no other way to quieten it alone.
logging.getLogger("absl").addFilter(_silence("orbax"))
