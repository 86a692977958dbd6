"""A user's own logs, for which no simulator is needed."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Shaped

from sorl.data import arrays as door, records
from sorl.data.loaded import LoadedData, to_device
from sorl.normalisation import Normalisation
from sorl.transitions import Dataset


REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("masks", "timeouts", "next_observations")
SCALE = ("action_low", "action_high")
WIDE = ("observations", "actions", "next_observations")
SMALLEST_SPREAD = 1e-6
"""An observation or action that varies less than this is taken for a constant, and not blown up."""

Range = tuple[Shaped[np.ndarray, " action"], Shaped[np.ndarray, " action"]]


@dataclasses.dataclass(frozen=True)
class _Log:
    """Checked trajectories in the user's own units."""

    rows: door.Arrays
    ends: Bool[np.ndarray, " rows"]
    """The last row of each trajectory, whatever ended it."""
    terminated: Bool[np.ndarray, " rows"]
    """Where the episode was over, so that nothing was left to gain."""

    def part(self, chosen: Bool[np.ndarray, " rows"]) -> "_Log":
        return _Log({key: rows[chosen] for key, rows in self.rows.items()}, self.ends[chosen], self.terminated[chosen])


def load_logs(path: pathlib.Path | str, *, validation_fraction: float = 0.1, seed: int = 0) -> LoadedData:
    """Loads logged trajectories from an npz file, and computes the scales that training and acting need.

    The file holds one row for each step, one trajectory after another:

    - `observations` [rows, size], `actions` [rows, size], `rewards` [rows]: what was seen, done, and got for it.
    - `terminals` [rows] of 0 and 1, and one of the two:
        - `timeouts` [rows]: then `terminals` is 1 where a step terminated the episode and `timeouts` where the log was
          cut for another reason, such as a time limit; either ends a trajectory.
        - `masks` [rows]: then `terminals` is 1 in each trajectory's last row, and a mask is 0 where a step terminated
          the episode and 1 elsewhere (OGBench's convention).
    - `next_observations` [rows, size], optional: what was seen after each step. Only the last rows need it, elsewhere
      it must agree with the next row. Without it, a trajectory's last step is dropped if it terminated nothing, since
      its successor is unknown; a terminating step stays, since its value needs no successor.
    - `action_low` and `action_high` [size], optional: the actions that stand for -1 and 1; by default the lowest and
      the highest of the file.

    **Arguments:** `path`; `validation_fraction`, the share of trajectories to hold out, drawn from `seed`, unless
    `{name}-val.npz` lies beside the file, which then is the validation set.

    **Returns:** `LoadedData` in the networks' units: actions in [-1, 1], observations with mean 0 and standard
    deviation 1 over the training rows.

    Raises a `ValueError` for bad data or a bad fraction, and a `FileNotFoundError` if there is no file.
    """
    path = pathlib.Path(path).expanduser()
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"The validation fraction is {validation_fraction}; give a number in [0, 1).")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}; give the npz file of your logs.")
    train, action_range = _read(path)
    beside = path.with_name(f"{path.stem}-val.npz")
    if beside.exists():
        validation: _Log | None = _read_beside(beside, train)
        held_out: dict[str, Any] = {"path": str(beside), **records.fingerprint(beside)}
    else:
        train, validation = _hold_out(train, validation_fraction, seed)
        held_out = {"fraction": validation_fraction, "seed": seed}
    normalisation = _normalisation(train, action_range or _widest(train, validation))
    train_set = _dataset(train, normalisation)
    if not len(train_set):
        raise ValueError(f"{path} holds no step with a known outcome; log longer trajectories or next_observations.")
    provenance = {"source": "own logs", "path": str(path), **records.fingerprint(path), **_size(train, train_set)}
    if validation is None:
        return LoadedData(train_set, None, normalisation, {**provenance, "validation": None})
    validation_set = _dataset(validation, normalisation)
    held_out.update(_size(validation, validation_set))
    return LoadedData(train_set, validation_set, normalisation, {**provenance, "validation": held_out})


def _read(path: pathlib.Path) -> tuple[_Log, Range | None]:
    """A file's trajectories, checked, and its action range if it stores one."""
    arrays = door.read_arrays(path, REQUIRED, OPTIONAL + SCALE)
    scale = {key: arrays.pop(key) for key in SCALE if key in arrays}
    door.refuse_wrong_shapes(path, arrays, WIDE)
    door.refuse_not_finite(path, arrays)
    ends, terminated = _ends(path, arrays)
    door.refuse_open_end(path, ends)
    if "next_observations" in arrays:
        _refuse_other_successors(path, arrays, ends)
    rows = {key: arrays[key].astype(np.float32) for key in (*WIDE, "rewards") if key in arrays}
    return _Log(rows, ends, terminated), _stored_range(path, scale, rows["actions"])


def _ends(path: pathlib.Path, arrays: door.Arrays) -> tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    """Which rows end a trajectory, and which terminated an episode."""
    if ("masks" in arrays) == ("timeouts" in arrays):
        found = "both masks and timeouts" if "masks" in arrays else "neither masks nor timeouts"
        raise ValueError(f"{path} holds {found}; give one of them, so that time-outs are not taken for terminations.")
    terminals = door.flags(path, arrays, "terminals")
    if "masks" in arrays:
        return terminals, ~door.flags(path, arrays, "masks")
    return terminals | door.flags(path, arrays, "timeouts"), terminals


def _refuse_other_successors(path: pathlib.Path, arrays: door.Arrays, ends: Bool[np.ndarray, " rows"]) -> None:
    nexts, observations = arrays["next_observations"], arrays["observations"]
    if nexts.shape != observations.shape:
        raise ValueError(
            f"next_observations of {path} have shape {list(nexts.shape)}, observations {list(observations.shape)}; "
            "give the same shape."
        )
    agree = np.isclose(nexts[:-1], observations[1:]).all(axis=1) | ends[:-1]
    if not agree.all():
        row = int(np.argmin(agree))
        raise ValueError(
            f"next_observations of {path} in row {row} is not the observation of row {row + 1}, although row {row} "
            "ends no trajectory; keep the steps in order and mark the ends."
        )


def _stored_range(path: pathlib.Path, scale: door.Arrays, actions: Shaped[np.ndarray, "rows action"]) -> Range | None:
    if not scale:
        return None
    if len(scale) < len(SCALE) or any(bound.shape != actions.shape[1:] for bound in scale.values()):
        found = ", ".join(f"{key} of shape {list(bound.shape)}" for key, bound in scale.items())
        raise ValueError(f"{path} holds {found}; give action_low and action_high, each [{actions.shape[1]}].")
    low, high = (scale[key].astype(np.float32) for key in SCALE)
    if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise ValueError(f"action_low {low} and action_high {high} of {path} span no range; give finite low < high.")
    inside = ((low <= actions) & (actions <= high)).all(axis=1)
    if not inside.all():
        row = int(np.argmin(inside))
        raise ValueError(
            f"actions of {path} leave the stored range {low} to {high} in row {row}: {actions[row]}; correct the range."
        )
    return low, high


def _read_beside(path: pathlib.Path, train: _Log) -> _Log:
    """The validation file, whose observations and actions must have the training file's sizes."""
    validation, _ = _read(path)
    for key in ("observations", "actions"):
        found, expected = validation.rows[key].shape[1], train.rows[key].shape[1]
        if found != expected:
            raise ValueError(f"{key} of {path} have size {found}, those to train on {expected}; give the same size.")
    return validation


def _hold_out(log: _Log, fraction: float, seed: int) -> tuple[_Log, _Log | None]:
    """Splits by whole trajectories: at least one of each kind, unless the fraction is 0 or there is only one."""
    trajectory = np.cumsum(log.ends) - log.ends
    count = int(log.ends.sum())
    held_out = min(count - 1, max(1, round(fraction * count))) if fraction else 0
    if not held_out:
        return log, None
    chosen = np.isin(trajectory, np.random.default_rng(seed).permutation(count)[:held_out])
    return log.part(~chosen), log.part(chosen)


def _widest(train: _Log, validation: _Log | None) -> Range:
    """The range of all actions; one that never varies is put in the middle of a range of width 2."""
    actions = np.concatenate([log.rows["actions"] for log in (train, validation) if log is not None])
    low, high = actions.min(axis=0), actions.max(axis=0)
    constant = high - low < SMALLEST_SPREAD
    return np.where(constant, low - 1, low), np.where(constant, high + 1, high)


def _normalisation(train: _Log, action_range: Range) -> Normalisation:
    observations = train.rows["observations"].astype(np.float64)
    spread = observations.std(axis=0)
    observation_scale = np.where(spread < SMALLEST_SPREAD, 1.0, spread)
    fields = observations.mean(axis=0), observation_scale, *action_range
    return Normalisation(*(jax.device_put(field.astype(np.float32)) for field in fields))


def _dataset(log: _Log, normalisation: Normalisation) -> Dataset:
    """The transitions in the networks' units, with a successor row put behind every trajectory's last."""
    last = np.flatnonzero(log.ends)
    behind = last + 1
    nexts = log.rows.get("next_observations")
    successors = (log.rows["observations"] if nexts is None else nexts)[last]
    observations = np.insert(log.rows["observations"], behind, successors, axis=0)
    observations, actions = jax.device_get(_in_network_units(normalisation, observations, log.rows["actions"]))
    has_outcome = ~log.ends | log.terminated | (nexts is not None)
    return to_device(
        observations=observations,
        # The action at a trajectory's end is not known; its last one is the best guess.
        actions=np.insert(actions, behind, actions[last], axis=0),
        rewards=np.insert(log.rows["rewards"], behind, 0),
        masks=np.insert(1 - log.terminated.astype(np.float32), behind, 1),
        is_start=np.insert(has_outcome, behind, False),
    )


# One program, not one for each sum, whose compilation a start would wait for.
@jax.jit
def _in_network_units(normalisation: Normalisation, observations: Array, actions: Array) -> tuple[Array, Array]:
    return normalisation.observation(observations), normalisation.action(actions)


def _size(log: _Log, dataset: Dataset) -> dict[str, int]:
    return {"episodes": int(log.ends.sum()), "transitions": len(dataset)}
