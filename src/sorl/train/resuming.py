"""Resuming a run from a checkpoint, after checking that nothing that it depends on has changed."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sorl.config.changes import by_dotted_name
from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig
from sorl.data.recorded.origin import refuse_other_columns
from sorl.runs.metrics import check_rows, read_metrics, read_timings
from sorl.runs.phases import expected_data, fingerprint, phases
from sorl.runs.versions import refuse_other_numerics
from sorl.train.checkpoints import CheckpointError, Checkpoints
from sorl.train.loop import TrainState


FREE = {
    "updates",
    "evaluation.workers",
    "evaluation.step_timeout",
    "data.path",
    "data.columns",
    "data.directory",
    "data.mirrors",
    "data.download",
    "data.residence",
}
"""Options, by dotted name, that may change when a run is continued; the data are identified by their SHA-256."""


def record(config: TrainConfig, provenance: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a checkpoint: everything that must not change before training continues from it; for JSON.

    **Arguments:** `config`; `provenance`, that of the data; `rows`, the digest of the rows written so far.
    """
    return {"config": to_json(config), "data": fingerprint(provenance), "rows": dict(rows)}


def restore(
    directory: Path,
    config: TrainConfig,
    provenance: Mapping[str, Any],
    template: TrainState,
    *,
    from_step: int | None = None,
    new_phase: bool = False,
) -> TrainState | None:
    """Reads the state that a run continues from, without writing anything.

    **Arguments:** `provenance`, that of the data; `template`, a state with the same structure; `from_step`, the step of
    an existing checkpoint (None: the latest); `new_phase`, whether the data may have changed.

    **Returns:** the state; None if the run has no checkpoint yet.

    **Raises:** a `CheckpointError` if the checkpoint is missing or damaged, and a `ValueError` that names the
    differences if the options, data or rows differ from those that the checkpoint was saved with.
    """
    if new_phase and (begun := phases(directory)):
        refuse_other_columns(provenance["path"], provenance, begun[0]["data"], f"the run in {directory}")
    # A run without a checkpoint starts from the beginning.
    path = directory / "checkpoints"
    if not path.is_dir():
        if from_step is not None:
            raise CheckpointError(f"{directory} has no checkpoint of update {from_step}; leave --from-step out.")
        _check_beginning(directory, provenance, new_phase)
        return None
    with Checkpoints(path, read_only=True) as saved:
        step = saved.latest_step() if from_step is None else from_step
        if step is None:
            _check_beginning(directory, provenance, new_phase)
            return None
        # Everything is checked before the state is read, and before any file is opened for writing.
        refuse_other_numerics(directory)
        found = saved.record(step)
        read_timings(directory)
        if found is None:
            _rows(directory)
            warnings.warn(
                f"The checkpoint of update {step} in {directory} was written by sorl 0.1.0, which recorded neither "
                "options nor rows with it: they are not checked.",
                stacklevel=2,
            )
        else:
            _check_options(directory, step, found["config"], config)
            check_rows(directory, step, found["rows"])
        if not new_phase:
            _check_data(directory, step, None if found is None else found["data"], provenance)
        return saved.restore(template, step)


def _check_beginning(directory: Path, provenance: Mapping[str, Any], new_phase: bool) -> None:
    """Checks that a run without a checkpoint can start from the beginning.

    Raises a `CheckpointError` if it has rows, because its checkpoints were then removed, and a `ValueError` if the data
    differ from the recorded ones.
    """
    if not new_phase:
        _check_data(directory, 0, None, provenance)
    if _rows(directory):
        raise CheckpointError(
            f"{directory} has rows of metrics but no checkpoint; restore its checkpoints, or start a new run."
        )


def _rows(directory: Path) -> list[dict[str, Any]]:
    return read_metrics(directory) if (directory / "metrics.jsonl").exists() else []


def _check_options(directory: Path, step: int, before: Mapping[str, Any], config: TrainConfig) -> None:
    # The conversion to JSON and back makes tuples lists on both sides.
    old, new = by_dotted_name(before), by_dotted_name(json.loads(json.dumps(to_json(config))))
    # An option that only one side has is of a different version of sorl, and has its default on the other side.
    changed = [name for name in old if name in new and name not in FREE and old[name] != new[name]]
    if new["updates"] < old["updates"]:
        changed.append("updates")
    if changed:
        differences = ", ".join(f"{name} was {old[name]!r} and is {new[name]!r}" for name in sorted(changed))
        raise ValueError(
            f"The options of the run in {directory} changed since its checkpoint of update {step}: {differences}; "
            "restore them in its config.json, or start a new run with --config."
        )


def _check_data(directory: Path, step: int, saved: Mapping[str, Any] | None, provenance: Mapping[str, Any]) -> None:
    expected, found = expected_data(directory, step, saved) or {}, fingerprint(provenance)
    for split in expected:  # a checkpoint of an earlier version has no reading
        if split == "reading" and expected[split] is None and provenance.get("columns"):
            continue  # nor has a table's record of an earlier version
        if split == "reading" and expected[split] != found[split]:
            raise ValueError(
                f"The columns of {provenance['path']}, or the episodes that its record holds out, are not those that "
                f"the run in {directory} was trained on up to update {step}; restore the TOML file or the record "
                "beside it, or add --new-phase to continue with these."
            )
        if expected[split] != found[split]:
            raise ValueError(
                f"The {split} data {provenance['path']} are not those that the run in {directory} was trained on up "
                f"to update {step} (SHA-256 {_short(found[split])} instead of {_short(expected[split])}); give the "
                "same data, with --data if they moved, or add --new-phase to continue with these."
            )


def _short(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}.."
