"""Loads a user's own logs: splits them by trajectories, scales them, and puts them on the device."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from sorl.data import records, summary
from sorl.data.columns import Columns, blocks, columns, is_constant
from sorl.data.loaded import LoadedData, empty_rows, to_device
from sorl.data.normalisation import Normalisation
from sorl.data.own_logs import scales
from sorl.data.own_logs.file import Log, read_log
from sorl.data.rewards import sparse
from sorl.data.transitions import Dataset
from sorl.system.files import expanded


def load_logs(
    path: pathlib.Path | str,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    observation_margin: float | None = 1.5,
    action_low: float | Sequence[float] | None = None,
    action_high: float | Sequence[float] | None = None,
    sparse_rewards: bool = False,
    normalisation: Normalisation | None = None,
) -> LoadedData:
    """Loads logged trajectories from an npz file, and computes the scales that training and acting need.

    The file holds one row for each step, one trajectory after another. A column [rows, 1] counts as [rows].

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
    whether every reward other than 0 becomes -1; `normalisation`, the units of a run that is continued, instead of
    those of the file: actions outside of its range are refused.

    **Returns:** `LoadedData` in the networks' units: actions in [-1, 1], observations with mean 0 and standard
    deviation 1 over the training rows.

    Raises a `ValueError` for bad data or a bad argument, and a `FileNotFoundError` if there is no file.
    """
    path = expanded(pathlib.Path(path), "give its full name")
    _refuse_bad_options(validation_fraction, observation_margin)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}; give the npz file of your logs.")
    return load_log(
        read_log(path),
        validation_fraction=validation_fraction,
        seed=seed,
        observation_margin=observation_margin,
        action_low=action_low,
        action_high=action_high,
        sparse_rewards=sparse_rewards,
        normalisation=normalisation,
    )


def load_log(
    log: Log,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    observation_margin: float | None = 1.5,
    action_low: float | Sequence[float] | None = None,
    action_high: float | Sequence[float] | None = None,
    sparse_rewards: bool = False,
    normalisation: Normalisation | None = None,
) -> LoadedData:
    """Splits checked trajectories of any file format, computes their scales, and puts them on the device.

    **Arguments:** `log`, whose rows are removed as they are converted; the others as for `load_logs`.

    Returns and raises as `load_logs` does.
    """
    _refuse_bad_options(validation_fraction, observation_margin)
    # The training rows determine the scales; a validation file beside the log only widens the action range.
    split = _split(log, validation_fraction, seed)
    logs = [log, *split.beside]
    if sparse_rewards:
        for part in logs:
            part.rows["rewards"] = sparse(part.rows["rewards"])
    if normalisation is None:
        limits = scales.action_range(logs, action_low, action_high)
    else:
        limits = scales.kept_range(logs, normalisation)
    observations, actions = _observations(log, split.train), _actions(log, split.train, limits)
    if normalisation is None:
        normalisation = scales.normalisation(observations, limits, observation_margin)
    elif len(normalisation.observation_mean) != len(observations.mean):
        size, expected = len(observations.mean), len(normalisation.observation_mean)
        raise ValueError(
            f"The observations of {log.path} have size {size}, those of the run {expected}; give its logs."
        )
    found = _summary(log, split.train, observations, actions)  # before the conversion, which removes the rows

    train_set, validation_set = _datasets(log, [split.train, ~split.train], normalisation)
    for beside in split.beside:
        (validation_set,) = _datasets(beside, [np.ones(len(beside.ends), np.bool_)], normalisation)
    if train_set is None:
        raise ValueError(
            f"{log.path} holds no step with a known outcome; log longer trajectories or next_observations."
        )
    provenance = _provenance(log, found, split, validation_set)
    if sparse_rewards:
        provenance["sparse_rewards"] = True
    return LoadedData(train_set, validation_set, normalisation, provenance)


def _refuse_bad_options(validation_fraction: float, observation_margin: float | None) -> None:
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"The validation fraction is {validation_fraction}; give a number in [0, 1).")
    scales.refuse_bad_margin(observation_margin)


class _Split(NamedTuple):
    """The split into training and validation data, by whole trajectories."""

    train: Bool[np.ndarray, " rows"]
    beside: list[Log]
    """The validation file; empty if trajectories of the file itself are held out."""
    episodes: int
    """Number of held-out episodes."""
    details: dict[str, Any]
    """How the held-out episodes were chosen."""


def _split(log: Log, fraction: float, seed: int) -> _Split:
    beside = log.path.with_name(f"{log.path.stem}-val.npz")
    if not beside.exists():
        if log.held_out is not None and not log.held_out.all():
            held_out = log.held_out[np.cumsum(log.ends) - log.ends]
            return _Split(~held_out, [], int(log.held_out.sum()), {"by": "the data's own split"})
        held_out = _held_out(log.ends, fraction, seed)
        return _Split(~held_out, [], int(log.ends[held_out].sum()), {"fraction": fraction, "seed": seed})
    other = read_log(beside)
    for key in ("observations", "actions"):
        found, expected = other.rows[key].shape[1], log.rows[key].shape[1]
        if found != expected:
            raise ValueError(f"{key} of {beside} have size {found}, those to train on {expected}; give the same size.")
    details = {"path": str(beside), **records.fingerprint(beside)}
    return _Split(np.ones(len(log.ends), np.bool_), [other], int(other.ends.sum()), details)


def _held_out(ends: Bool[np.ndarray, " rows"], fraction: float, seed: int) -> Bool[np.ndarray, " rows"]:
    """Whether each row is held out; both parts have a trajectory, unless the fraction is 0 or there is only one."""
    trajectory = np.cumsum(ends) - ends
    count = int(ends.sum())
    held_out = min(count - 1, max(1, round(fraction * count))) if fraction else 0
    return np.isin(trajectory, np.random.default_rng(seed).permutation(count)[:held_out])


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
    return summary.summarise(
        observations,
        actions,
        log.rows["rewards"][train],
        log.ends[train],
        log.terminated[train],
        transitions=int((log.has_outcome() & train).sum()),
        unused_keys=log.unused_keys,
        notes=log.notes,
    )


def _provenance(log: Log, found: dict[str, Any], split: _Split, validation: Dataset | None) -> dict[str, Any]:
    counts = {"episodes": split.episodes, "transitions": 0 if validation is None else len(validation)}
    return {
        "source": "own logs",
        "path": str(log.path),
        **(records.fingerprint(log.path) if log.origin is None else log.origin),
        "episodes": found["episodes"],
        "transitions": found["transitions"],
        "validation": {**split.details, **counts} if split.episodes else None,
        "summary": {**found, "validation": counts if split.episodes else None},
    }


def _datasets(
    log: Log, parts: Sequence[Bool[np.ndarray, " rows"]], normalisation: Normalisation
) -> list[Dataset | None]:
    """The transitions of each part of the rows, in the networks' units; None for a part without transitions.

    Each trajectory ends with an extra row, its last next observation. The log's rows are removed as soon as they are
    converted.
    """
    layouts = [_Layout.of(log.ends, chosen) for chosen in parts]
    observations = _converted(
        log.rows.pop("observations"),
        log.successors,
        layouts,
        functools.partial(scales.network_observation, normalisation),
    )
    actions = log.rows.pop("actions")
    # The action in the extra row is not known; repeat the trajectory's last action.
    actions = _converted(actions, actions[log.ends], layouts, functools.partial(scales.network_action, normalisation))
    rewards = log.rows.pop("rewards")
    has_outcome = log.has_outcome()
    return [
        to_device(
            observations=part_observations,
            actions=part_actions,
            rewards=layout.column(rewards, behind=0),
            masks=layout.column(1 - log.terminated.astype(np.float32), behind=1),
            is_start=layout.column(has_outcome, behind=0).astype(np.bool_),
        )
        if has_outcome[layout.chosen].any()
        else None
        for layout, part_observations, part_actions in zip(layouts, observations, actions, strict=True)
    ]


class _Layout(NamedTuple):
    """The positions of one part's rows in its data set."""

    chosen: Bool[np.ndarray, " rows"]
    place: Int[np.ndarray, " rows"]
    """The position of each chosen row."""
    behind: Int[np.ndarray, " successors"]
    """The position of the extra last row of each chosen trajectory."""
    trajectories: Bool[np.ndarray, " trajectories"]
    """Whether each trajectory is chosen."""
    rows: int

    @classmethod
    def of(cls, ends: Bool[np.ndarray, " rows"], chosen: Bool[np.ndarray, " rows"]) -> "_Layout":
        last = ends & chosen
        place = np.cumsum(chosen, dtype=np.int32) + np.cumsum(last, dtype=np.int32) - last - 1
        return cls(chosen, place, place[last] + 1, chosen[ends], int(chosen.sum() + last.sum()))

    def column(self, values: Shaped[np.ndarray, " rows"], behind: int) -> Float[np.ndarray, " placed"]:
        """One number for each row, with the value `behind` in the extra last rows."""
        placed = np.full(self.rows, behind, np.float32)
        placed[self.place[self.chosen]] = values[self.chosen]
        return placed


def _converted(
    array: Shaped[np.ndarray, "rows size"],
    successors: Shaped[np.ndarray, "trajectories size"],
    layouts: Sequence[_Layout],
    convert: Callable[[Shaped[np.ndarray, "some size"]], Float[np.ndarray, "some size"]],
) -> list[Float[np.ndarray, "placed size"]]:
    """The rows of each part and its extra last rows, converted one block at a time."""
    placed = [empty_rows(layout.rows, array.shape[1]) for layout in layouts]
    for block in blocks(array):
        converted = convert(array[block])
        for layout, rows in zip(layouts, placed, strict=True):
            chosen = layout.chosen[block]
            rows[layout.place[block][chosen]] = converted[chosen]
    converted = convert(successors)
    for layout, rows in zip(layouts, placed, strict=True):
        rows[layout.behind] = converted[layout.trajectories]
    return placed
