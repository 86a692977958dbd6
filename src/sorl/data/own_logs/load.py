"""Loads a user's own logs: splits them by trajectories, scales them, and puts them where they stay."""

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from sorl.data import checks, records, summary
from sorl.data.columns import Columns, columns, is_constant
from sorl.data.loaded import LoadedData
from sorl.data.mapped.logs import read_directory, size as mapped_size
from sorl.data.mapped.manifest import is_data_directory, refuse_missing, refuse_other_directory
from sorl.data.normalisation import Normalisation
from sorl.data.own_logs import scales
from sorl.data.own_logs.file import Log, read_log
from sorl.data.own_logs.options import LogOptions
from sorl.data.own_logs.placing import Placed, device_datasets, host_datasets, size_of
from sorl.data.own_logs.record import about
from sorl.data.recorded.origin import held_out as held_out_numbers
from sorl.data.residence import Chosen, Residence, choose
from sorl.data.rewards import sparse
from sorl.system.files import expanded
from sorl.system.ranges import MAX_NUMBER


def load_logs(
    path: pathlib.Path | str,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    observation_margin: float | None = 1.5,
    action_low: float | Sequence[float] | None = None,
    action_high: float | Sequence[float] | None = None,
    sparse_rewards: bool = False,
    reward_scale: float = 1.0,
    residence: Residence = "device",
    normalisation: Normalisation | None = None,
) -> LoadedData:
    """Loads logged trajectories (an npz file or a data directory), and computes the scales for training and acting.

    Data directories are what `sorl.data.mapped.writer.MappedWriter` writes. An npz file holds one row for each step,
    one trajectory after another. A column [rows, 1] counts as [rows].

    - `observations` [rows, size], `actions` [rows, size], `rewards` [rows]: of each step. They may have any real dtype;
      observations in double precision keep a small variation on a large offset, such as a clock's.
    - `terminals` [rows] of 0 and 1 (or `terminations`, its name in Gymnasium), and one of:
        - `timeouts` [rows] (or `truncations`): then `terminals` is 1 where a step terminated the episode, and
          `timeouts` is 1 where the log was cut for another reason, such as a time limit; either ends a trajectory.
        - `masks` [rows]: then `terminals` is 1 in each trajectory's last row, and a mask is 0 where a step terminated
          the episode and 1 elsewhere (OGBench's convention).
    - `next_observations` [rows, size], optional: the observation after each step, before any reset. Only a trajectory's
      last row needs it; elsewhere it must agree with the next row. Without it, a trajectory's last step is dropped
      unless it terminated the episode, because its next observation is unknown; a terminating step needs none. A last
      next observation that equals the next trajectory's first observation counts as unknown, with a warning.
    - `next_known` [rows] of 0 and 1, optional: whether each next observation was seen. Then no equality is looked for.
    - `action_low` and `action_high` [size], optional: the actions that map to -1 and 1; default: the lowest and the
      highest action of the file (and of the validation file). Policies never act outside this range.

    A warning names unused keys. An action that is constant in the logs always stays exactly that constant; an
    observation that is constant is only centred. A column is constant if it varies by at most four rounding steps of
    its stored dtype.

    **Arguments:** `path`; `validation_fraction`, the share of trajectories to hold out, drawn from `seed`, unless
    `{name}-val.npz` lies beside the file, which then is the validation set; `observation_margin`, which limits what
    the policy sees: each observation is clipped to centre +- margin * half range, in the user's units, where centre and
    half range are those of the training rows and their successors (a constant to itself; None: no limits);
    `action_low` and `action_high`, instead of the file's, one number for each action or one for all; `sparse_rewards`,
    whether every reward other than 0 becomes -1; `reward_scale`, by which every reward is multiplied; `residence`,
    where the data stay (see `sorl.data.residence`), which changes no number; `normalisation`, the units of a run that
    is continued, instead of those of the file: actions outside of its range are clipped to it, with a warning.

    **Returns:** `LoadedData` in the networks' units: actions in [-1, 1], observations with mean 0 and standard
    deviation 1 over the training rows.

    Raises a `ValueError` for bad data or a bad argument, and a `FileNotFoundError` if there is no file.
    """
    options = LogOptions(
        pathlib.Path(path),
        validation_fraction,
        observation_margin,
        action_low,
        action_high,
        sparse_rewards,
        reward_scale,
        residence,
    )
    return load_file(options, seed=seed, normalisation=normalisation)


def load_file(options: LogOptions, *, seed: int = 0, normalisation: Normalisation | None = None) -> LoadedData:
    """As `load_logs`, with its arguments as `options`."""
    path = expanded(options.path, "give its full name")
    _refuse_bad_options(options)
    refuse_missing(path)
    refuse_other_directory(path)
    log, chosen = _read(path, options.residence)
    return load_log(_with_origin(log), options, seed=seed, chosen=chosen, normalisation=normalisation)


def _read(path: pathlib.Path, residence: Residence | Chosen) -> tuple[Log, Chosen | None]:
    """Reads a file or data directory; that of a directory is chosen before, so that no more than needed is read."""
    if not is_data_directory(path):
        return read_log(path), None
    if not isinstance(residence, Chosen):
        residence = choose(residence, mapped_size(path), path)
    return read_directory(path, in_memory=residence.residence != "disk"), residence


def load_log(
    log: Log,
    options: LogOptions,
    *,
    seed: int = 0,
    chosen: Chosen | None = None,
    normalisation: Normalisation | None = None,
) -> LoadedData:
    """Splits checked trajectories of any file format, computes their scales, and puts them where they stay.

    **Arguments:** `log`, whose rows are removed as they are put on a device; `chosen`, where they stay, if that was
    chosen before reading; `seed` and `normalisation` as for `load_logs`.

    Returns and raises as `load_logs` does.
    """
    _refuse_bad_options(options)
    chosen = chosen or choose(options.residence, size_of(log), log.path)
    # The training rows determine the scales; a validation file beside the log only widens the action range.
    split = _split(log, options.validation_fraction, seed, chosen)
    logs = [log, *split.beside]
    if options.sparse_rewards:
        for part in logs:
            part.rows["rewards"] = sparse(part.rows["rewards"])
    if options.reward_scale != 1:
        for part in logs:
            part.rows["rewards"] = _scaled(part, options.reward_scale)
    if normalisation is None:
        limits = scales.action_range(logs, options.action_low, options.action_high)
    else:
        limits = scales.kept_range(logs, normalisation)
    observations, actions = _observations(log, split.train), _actions(log, split.train, limits)
    if normalisation is None:
        normalisation = scales.normalisation(observations, limits, options.observation_margin)
    elif len(normalisation.observation_mean) != len(observations.mean):
        size, expected = len(observations.mean), len(normalisation.observation_mean)
        raise ValueError(
            f"The observations of {log.path} have size {size}, those of the run {expected}; give its logs."
        )
    found = _summary(log, split.train, observations, actions)  # before the conversion, which removes the rows

    place = device_datasets if chosen.residence == "device" else host_datasets
    train_set, validation_set = place(log, [split.train, ~split.train], normalisation)
    for beside in split.beside:
        (validation_set,) = place(beside, [np.ones(len(beside.ends), np.bool_)], normalisation)
    if train_set is None:
        raise ValueError(
            f"{log.path} holds no step with a known outcome in the episodes to train on; log longer trajectories or "
            "next_observations."
        )
    provenance = _provenance(log, found, split, validation_set)
    if options.sparse_rewards:
        provenance["sparse_rewards"] = True
    if options.reward_scale != 1:
        provenance["reward_scale"] = options.reward_scale
    return LoadedData(train_set, validation_set, normalisation, provenance, chosen)


def _scaled(log: Log, factor: float) -> Shaped[np.ndarray, " rows"]:
    """The rewards times a factor, in single precision at least; raises a `ValueError` if one becomes too large."""
    rewards = log.rows["rewards"]
    if rewards.dtype == np.float16:
        rewards = rewards.astype(np.float32)
    with np.errstate(over="ignore"):
        scaled = rewards * factor
    checks.refuse_large(log.path, f"rewards, times the reward scale {factor:g},", scaled, checks.LARGEST_REWARD)
    return scaled


def _refuse_bad_options(options: LogOptions) -> None:
    if not 0 <= options.validation_fraction < 1:
        raise ValueError(f"The validation fraction is {options.validation_fraction}; give a number in [0, 1).")
    margin = options.observation_margin
    if margin is not None and not 1 <= margin <= MAX_NUMBER:
        raise ValueError(
            f"The observation margin is {margin}; give a finite number >= 1, up to {MAX_NUMBER:g}, or None for no "
            "limits."
        )


class _Split(NamedTuple):
    """The split into training and validation data, by whole trajectories."""

    train: Bool[np.ndarray, " rows"]
    beside: list[Log]
    """The validation file; empty if trajectories of the file itself are held out."""
    episodes: int
    """Number of held-out episodes."""
    details: dict[str, Any]
    """How the held-out episodes were chosen."""


def _split(log: Log, fraction: float, seed: int, residence: Chosen) -> _Split:
    beside = validation_path(log.path)
    if not beside.exists():
        held_out, details = log.held_out, {"by": "the data's own split"}
        if held_out is None:
            held_out = held_out_trajectories(len(log.successors), fraction, seed)
            details = {"fraction": fraction, "seed": seed}
        elif held_out.all():
            raise ValueError(f"The split of {log.path} holds out every episode; leave some to train on.")
        return _Split(~np.repeat(held_out, log.lengths), [], int(held_out.sum()), details)
    other, _ = _read(beside, residence)
    for key in ("observations", "actions"):
        found, expected = other.rows[key].shape[1], log.rows[key].shape[1]
        if found != expected:
            raise ValueError(f"{key} of {beside} have size {found}, those to train on {expected}; give the same size.")
    details = {"path": str(beside), **(_with_origin(other).origin or {})}
    return _Split(np.ones(len(log.ends), np.bool_), [other], int(other.ends.sum()), details)


def validation_path(path: pathlib.Path) -> pathlib.Path:
    """The file or data directory that is held out, if it exists, in place of episodes of the logs in `path`."""
    return path.with_name(f"{path.name}-val" if is_data_directory(path) else f"{path.stem}-val.npz")


def held_out_trajectories(count: int, fraction: float, seed: int) -> Bool[np.ndarray, " trajectories"]:
    """Whether each of `count` trajectories is held out; both parts have one, unless fraction is 0 or count 1."""
    chosen = np.zeros(count, np.bool_)
    number = min(count - 1, max(1, round(fraction * count))) if fraction else 0
    chosen[np.random.default_rng(seed).permutation(count)[:number]] = True
    return chosen


def _observations(log: Log, train: Bool[np.ndarray, " rows"]) -> Columns:
    """Statistics of the training rows; their range includes the observations after each trajectory."""
    found = columns(log.rows["observations"], train)
    successors = log.successors[train[log.ends]].astype(np.float64)
    low, high = np.minimum(found.low, successors.min(axis=0)), np.maximum(found.high, successors.max(axis=0))
    return found._replace(low=low, high=high, constant=is_constant(low, high, log.rows["observations"].dtype))


def _actions(log: Log, train: Bool[np.ndarray, " rows"], limits: scales.Range) -> Columns:
    """Statistics of the training rows; a column counts as constant only if it is constant in all files."""
    return columns(log.rows["actions"], train)._replace(constant=limits.low == limits.high)


def _summary(log: Log, train: Bool[np.ndarray, " rows"], observations: Columns, actions: Columns) -> dict[str, Any]:
    # Counted by trajectories: of a billion steps, each mask of rows is a gigabyte.
    picked, without_outcome = train[log.ends], ~log.last_has_outcome()
    return summary.summarise(
        observations,
        actions,
        log.rows["rewards"],
        log.ends,
        log.terminated,
        chosen=train,
        transitions=int(log.lengths[picked].sum() - without_outcome[picked].sum()),
        unused_keys=log.unused_keys,
        notes=log.notes,
    )


def _with_origin(log: Log) -> Log:
    """Logs with their origin; converted ones keep the source's own split."""
    origin = log.origin
    if origin is None:
        origin = records.fingerprint(log.path)
        recorded, note = about(log.path, origin["sha256"])
        if recorded is not None:
            origin |= {"about": recorded}
        if note is not None:
            warnings.warn(note, stacklevel=4)
            log = dataclasses.replace(log, notes=(*log.notes, note))
    numbers, held_out = held_out_numbers(origin.get("about")), np.zeros(len(log.successors), np.bool_)
    if not numbers or min(numbers) < 0 or max(numbers) >= len(held_out):
        return dataclasses.replace(log, origin=origin)
    held_out[numbers] = True
    return dataclasses.replace(log, origin=origin, held_out=held_out)


def _provenance(log: Log, found: dict[str, Any], split: _Split, validation: Placed) -> dict[str, Any]:
    counts = {"episodes": split.episodes, "transitions": 0 if validation is None else len(validation)}
    return {
        "source": "own logs",
        "path": str(log.path),
        **(log.origin or records.fingerprint(log.path)),
        "episodes": found["episodes"],
        "transitions": found["transitions"],
        "validation": {**split.details, **counts} if split.episodes else None,
        "summary": {**found, "validation": counts if split.episodes else None},
    }
