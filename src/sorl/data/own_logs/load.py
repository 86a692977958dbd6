"""A user's own logs, for which no simulator is needed."""

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
    normalisation: Normalisation | None = None,
) -> LoadedData:
    """Loads logged trajectories from an npz file, and computes the scales that training and acting need.

    The file holds one row for each step, one trajectory after another. A column [rows, 1] counts as [rows].

    - `observations` [rows, size], `actions` [rows, size], `rewards` [rows]: what was seen, done, and got for it.
      Observations may be of any real dtype; in double precision they keep a small variation on a large offset, such as
      a clock's.
    - `terminals` [rows] of 0 and 1 (or `terminations`, its name in Gymnasium), and one of the two:
        - `timeouts` [rows] (or `truncations`): then `terminals` is 1 where a step terminated the episode and `timeouts`
          where the log was cut for another reason, such as a time limit; either ends a trajectory.
        - `masks` [rows]: then `terminals` is 1 in each trajectory's last row, and a mask is 0 where a step terminated
          the episode and 1 elsewhere (OGBench's convention).
    - `next_observations` [rows, size], optional: what was seen after each step, before any reset. Only the last rows
      need it, elsewhere it must agree with the next row. Without it, a trajectory's last step is dropped if it
      terminated nothing, since its successor is unknown; a terminating step stays, since its value needs no successor.
      A last successor that is the next trajectory's first observation counts as unknown, with a warning.
    - `action_low` and `action_high` [size], optional: the actions that stand for -1 and 1; by default the lowest and
      the highest of the file (and of the validation file). Actions never leave this range.

    A warning names keys that are not used. An action that is constant in the logs acts as that constant, exactly,
    whatever the range; an observation that is constant is only centred. Constant is what varies by no more than
    four rounding steps of its stored dtype.

    **Arguments:** `path`; `validation_fraction`, the share of trajectories to hold out, drawn from `seed`, unless
    `{name}-val.npz` lies beside the file, which then is the validation set; `observation_margin`, which limits what
    the policy sees: each observation is clipped to centre +- margin * half range, in the user's units, where centre and
    half range are those of the training rows and their successors (a constant to itself; None: no limits);
    `action_low` and `action_high`, instead of the file's, one number for each action or one for all; `normalisation`,
    the units of a run that is continued, instead of those of the file: actions outside of its range are refused.

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
    normalisation: Normalisation | None = None,
) -> LoadedData:
    """Splits checked trajectories, computes their scales, and puts them on the device, whatever file they are from.

    **Arguments:** `log`, whose rows are removed as they are converted; the others as for `load_logs`.

    **Returns:** and raises as `load_logs`.
    """
    _refuse_bad_options(validation_fraction, observation_margin)
    # What is trained on decides the scales; a validation file beside the log only widens the action range.
    split = _split(log, validation_fraction, seed)
    logs = [log, *split.beside]
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
    return LoadedData(train_set, validation_set, normalisation, _provenance(log.path, found, split, validation_set))


def _refuse_bad_options(validation_fraction: float, observation_margin: float | None) -> None:
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"The validation fraction is {validation_fraction}; give a number in [0, 1).")
    scales.refuse_bad_margin(observation_margin)


class _Split(NamedTuple):
    """What is trained on and what is held out, by whole trajectories."""

    train: Bool[np.ndarray, " rows"]
    beside: list[Log]
    """The validation file; none where trajectories of the file itself are held out."""
    episodes: int
    """How many are held out."""
    details: dict[str, Any]
    """How they were chosen."""


def _split(log: Log, fraction: float, seed: int) -> _Split:
    beside = log.path.with_name(f"{log.path.stem}-val.npz")
    if not beside.exists():
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
    """Rows of the held-out trajectories: at least one of each kind, unless the fraction is 0 or there is only one."""
    trajectory = np.cumsum(ends) - ends
    count = int(ends.sum())
    held_out = min(count - 1, max(1, round(fraction * count))) if fraction else 0
    return np.isin(trajectory, np.random.default_rng(seed).permutation(count)[:held_out])


def _observations(log: Log, train: Bool[np.ndarray, " rows"]) -> Columns:
    """Statistics of the rows to train on; their range includes what was seen after the last ones."""
    found = columns(log.rows["observations"], train)
    successors = log.successors[train[log.ends]].astype(np.float64)
    low, high = np.minimum(found.low, successors.min(axis=0)), np.maximum(found.high, successors.max(axis=0))
    return found._replace(low=low, high=high, constant=is_constant(low, high, log.rows["observations"].dtype))


def _actions(log: Log, train: Bool[np.ndarray, " rows"], limits: scales.Range) -> Columns:
    """Statistics of the rows to train on; constant is what is so in all files."""
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


def _provenance(path: pathlib.Path, found: dict[str, Any], split: _Split, validation: Dataset | None) -> dict[str, Any]:
    counts = {"episodes": split.episodes, "transitions": 0 if validation is None else len(validation)}
    return {
        "source": "own logs",
        "path": str(path),
        **records.fingerprint(path),
        "episodes": found["episodes"],
        "transitions": found["transitions"],
        "validation": {**split.details, **counts} if split.episodes else None,
        "summary": {**found, "validation": counts if split.episodes else None},
    }


def _datasets(
    log: Log, parts: Sequence[Bool[np.ndarray, " rows"]], normalisation: Normalisation
) -> list[Dataset | None]:
    """The transitions of each part of the rows, in the networks' units; None for a part without any.

    A successor row stands behind every trajectory's last. The log's rows are removed as soon as they are converted.
    """
    layouts = [_Layout.of(log.ends, chosen) for chosen in parts]
    observations = _converted(
        log.rows.pop("observations"),
        log.successors,
        layouts,
        functools.partial(scales.network_observation, normalisation),
    )
    actions = log.rows.pop("actions")
    # The action at a trajectory's end is not known; its last one is the best guess.
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
    """Where the rows of one part stand in its data set."""

    chosen: Bool[np.ndarray, " rows"]
    place: Int[np.ndarray, " rows"]
    """Of each row, if it is chosen."""
    behind: Int[np.ndarray, " successors"]
    """Of the successor row of each chosen trajectory."""
    trajectories: Bool[np.ndarray, " trajectories"]
    """Which are chosen."""
    rows: int

    @classmethod
    def of(cls, ends: Bool[np.ndarray, " rows"], chosen: Bool[np.ndarray, " rows"]) -> "_Layout":
        last = ends & chosen
        place = np.cumsum(chosen, dtype=np.int32) + np.cumsum(last, dtype=np.int32) - last - 1
        return cls(chosen, place, place[last] + 1, chosen[ends], int(chosen.sum() + last.sum()))

    def column(self, values: Shaped[np.ndarray, " rows"], behind: int) -> Float[np.ndarray, " placed"]:
        """One number for each row, and `behind` in the successor rows."""
        placed = np.full(self.rows, behind, np.float32)
        placed[self.place[self.chosen]] = values[self.chosen]
        return placed


def _converted(
    array: Shaped[np.ndarray, "rows size"],
    successors: Shaped[np.ndarray, "trajectories size"],
    layouts: Sequence[_Layout],
    convert: Callable[[Shaped[np.ndarray, "some size"]], Float[np.ndarray, "some size"]],
) -> list[Float[np.ndarray, "placed size"]]:
    """The rows of each part and its successor rows, converted a block at a time."""
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
