"""Reads the npz file of a user's own logs, and refuses or corrects inconsistent data."""

import dataclasses
import difflib
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from sorl.data import checks, npz, successors
from sorl.data.columns import blocks, columns


REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("masks", "timeouts", "next_observations", "next_known")
SCALE = ("action_low", "action_high")
WIDE = ("observations", "actions", "next_observations")
OTHER_NAMES = {"terminals": "terminations", "timeouts": "truncations"}
"""Gymnasium's names, accepted in place of ours."""
SYNONYMS = {"done": "terminals", "dones": "terminals", "acts": "actions"}
"""Common names of our keys that are not similar in spelling."""


@dataclasses.dataclass(frozen=True)
class Log:
    """Checked trajectories in the user's own units and dtypes."""

    path: pathlib.Path
    rows: checks.Arrays
    """`observations`, `actions` and `rewards`; each is removed after its conversion, which frees its memory."""
    ends: Bool[np.ndarray, " rows"]
    """Whether a row is the last of its trajectory, for any reason."""
    terminated: Bool[np.ndarray, " rows"]
    """Whether the episode terminated in a row, so that no reward could follow."""
    successors: Shaped[np.ndarray, "trajectories observation"]
    """The observation after each trajectory's last row; that row's own observation if it is not known."""
    has_successor: Bool[np.ndarray, " trajectories"]
    scale: checks.Arrays
    """`action_low` and `action_high`, if the file stores them."""
    unused_keys: tuple[str, ...]
    notes: tuple[str, ...]
    """Sentences about what was corrected or not used; policies store them, so they do not name the file's directory."""
    origin: Mapping[str, Any] | None = None
    """The size, digest and form of data in another format, for the provenance; None: the file's own fingerprint."""
    held_out: Bool[np.ndarray, " trajectories"] | None = None
    """The trajectories that the data themselves keep for validation; None: they do not say."""

    @property
    def lengths(self) -> Int[np.ndarray, " trajectories"]:
        """Number of steps of each trajectory."""
        return np.diff(np.flatnonzero(self.ends), prepend=-1)

    def has_outcome(self) -> Bool[np.ndarray, " rows"]:
        """Whether each row can be used for training: its next observation is known, or it terminated."""
        found = np.ones(len(self.ends), np.bool_)
        found[self.ends] = self.last_has_outcome()
        return found

    def last_has_outcome(self) -> Bool[np.ndarray, " trajectories"]:
        """Whether the last row of each trajectory can be used for training."""
        return self.has_successor | self.terminated[self.ends]


def read_log(path: pathlib.Path) -> Log:
    """Reads and checks a file of logs; warns of what it corrects or ignores, and raises a `ValueError` for bad data."""
    with npz.opened(path) as file:
        stored, unused, shapes = read_header(path, file)
        arrays = {name: file.read(key).reshape(shapes[name]) for name, key in stored.items()}
    scale = {name: arrays.pop(name) for name in SCALE if name in arrays}
    _refuse_bad_arrays(path, arrays)
    ends, terminated = _ends(path, arrays)
    checks.refuse_open_end(path, ends)
    after, has_successor, notes = _successors(path, arrays, ends)
    if arrays["actions"].dtype.kind in "iu":
        notes.append(checks.whole_numbers_note(path))
    if unused:
        notes.append(f"{path.name} holds keys that are not used: {', '.join(map(_with_suggestion, unused))}.")
    for note in notes:
        warnings.warn(note, stacklevel=3)
    rows = {key: arrays[key] for key in ("observations", "actions", "rewards")}
    return Log(path, rows, ends, terminated, after, has_successor, scale, tuple(unused), tuple(notes))


class Header(NamedTuple):
    """What the names and shapes of a file's arrays say, before any of them is read."""

    stored: dict[str, str]
    """The stored key of each known name."""
    unused: list[str]
    """The other keys."""
    shapes: dict[str, tuple[int, ...]]
    """The shape of each known name; that of a column [rows, 1] is [rows], for names with one number per row."""


def read_header(path: pathlib.Path, file: npz.Npz) -> Header:
    """The header of an open file of logs; raises a `ValueError` for names or shapes that cannot be used.

    The shapes of `action_low` and `action_high` are for `refuse_wrong_scale`.
    """
    stored, unused = _stored_names(path, file.keys)
    shapes = {name: file.shape(key) for name, key in stored.items()}
    shapes |= {name: shape[:1] for name, shape in shapes.items() if name not in (*WIDE, *SCALE) and shape[1:] == (1,)}
    checks.refuse_shapes(path, {name: shape for name, shape in shapes.items() if name not in SCALE}, WIDE)
    return Header(stored, unused, shapes)


def _stored_names(path: pathlib.Path, keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The stored key of each known name, and the unused keys.

    Raises a `ValueError` if one is missing or repeated, or unless one of `masks` and `timeouts` is among them.
    """
    stored = {}
    for name in (*REQUIRED, *OPTIONAL, *SCALE):
        found = [key for key in keys if key == name or key == OTHER_NAMES.get(name)]
        if len(found) > 1:
            raise ValueError(f"{path} holds both {' and '.join(found)}, which mean the same; give one of them.")
        if found:
            stored[name] = found[0]
    unused = [key for key in keys if key not in stored.values()]
    if stored.get("terminals") == "terminations" and "masks" in stored:
        raise ValueError(
            f"{path} holds terminations and masks; give terminations with truncations, or terminals with masks."
        )
    missing = [name for name in REQUIRED if name not in stored]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: it holds {', '.join(map(_with_suggestion, keys)) or 'no array'}, but "
            f"{', '.join(REQUIRED)} are needed; rename or add them."
        )
    if ("masks" in stored) == ("timeouts" in stored):
        found = "both masks and timeouts" if "masks" in stored else "neither masks nor timeouts"
        raise ValueError(f"{path} holds {found}; give one of them, which distinguishes time-outs from terminations.")
    return stored, unused


def _with_suggestion(key: str) -> str:
    """The key, with the most similar known name as a suggestion."""
    known = (*REQUIRED, *OPTIONAL, *SCALE)
    if key in known or key in OTHER_NAMES.values():
        return key
    begun = [name for name in known if len(key) > 2 and name.startswith(key.lower().rstrip("s"))]
    near = [SYNONYMS[key]] if key in SYNONYMS else begun or difflib.get_close_matches(key.lower(), known, n=1)
    return f"{key} (did you mean {near[0]}?)" if near else key


def _refuse_bad_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    for key in ("observations", "actions"):
        if not arrays[key].shape[1]:
            raise ValueError(f"{key} of {path} have shape {list(arrays[key].shape)}; give at least one column.")
    if arrays["actions"].dtype.kind == "b":
        raise ValueError(f"actions of {path} are booleans, but policies act with real numbers; give real numbers.")
    checks.refuse_not_finite(path, {key: array for key, array in arrays.items() if key != "next_observations"})
    checks.refuse_large(path, "rewards", arrays["rewards"], checks.LARGEST_REWARD)
    checks.refuse_large(path, "actions", arrays["actions"], checks.LARGEST_ACTION)


def _ends(path: pathlib.Path, arrays: checks.Arrays) -> tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    """Whether each row ends a trajectory, and whether it terminated its episode."""
    terminals = checks.flags(path, "terminals", arrays["terminals"])
    if "masks" in arrays:
        return terminals, ~checks.flags(path, "masks", arrays["masks"])
    return terminals | checks.flags(path, "timeouts", arrays["timeouts"]), terminals


def refuse_wrong_scale(path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], size: int) -> None:
    """Raises a `ValueError` unless a file has both `action_low` and `action_high`, each of `size` numbers, or neither.

    **Arguments:** `shapes`, those of the arrays of `SCALE` that the file stores.
    """
    if shapes and (len(shapes) < 2 or any(shape != (size,) for shape in shapes.values())):
        found = ", ".join(f"{key} of shape {list(shape)}" for key, shape in shapes.items())
        raise ValueError(f"{path} holds {found}; give action_low and action_high, each [{size}].")


def _successors(
    path: pathlib.Path, arrays: checks.Arrays, ends: Bool[np.ndarray, " rows"]
) -> tuple[Shaped[np.ndarray, "trajectories observation"], Bool[np.ndarray, " trajectories"], list[str]]:
    """The observation after each trajectory, whether it is known (see `sorl.data.successors`), and warnings."""
    last = np.flatnonzero(ends)
    observations = arrays["observations"]
    if "next_observations" not in arrays:
        if "next_known" in arrays:
            raise ValueError(f"{path} holds next_known without next_observations; give both or neither.")
        return observations[last], np.zeros(len(last), np.bool_), []
    nexts, known = arrays["next_observations"], None
    if "next_known" in arrays:
        known = checks.flags(path, "next_known", arrays["next_known"])[last]
        nexts[last[~known]] = 0  # it may be NaN
    checks.refuse_not_finite(path, {"next_observations": nexts})
    _refuse_other_successors(path, nexts, observations, ends)
    found = nexts[last]
    if known is not None:
        return np.where(known[:, None], found, observations[last]), known, []
    first = observations[np.append(last[:-1] + 1, 0)]  # `numpy.roll` puts the file's first row after the last
    foreign = successors.is_foreign(found, first, observations[last])
    if len(last) > 1 and foreign[:-1].all():
        foreign[-1] = True
    if not foreign.any():
        return found, ~foreign, []
    note = successors.foreign_note(path, int(foreign.sum()), len(last), int(last[np.argmax(foreign)]))
    return np.where(foreign[:, None], observations[last], found), ~foreign, [note]


def _refuse_other_successors(
    path: pathlib.Path,
    nexts: Shaped[np.ndarray, "rows size"],
    observations: Shaped[np.ndarray, "rows observation"],
    ends: Bool[np.ndarray, " rows"],
) -> None:
    """Raises a `ValueError` unless each next observation within a trajectory is the observation of the next row.

    They may differ by rounding, and by a small share of their column's range, so that units do not matter.
    """
    if nexts.shape != observations.shape:
        raise ValueError(
            f"next_observations of {path} have shape {list(nexts.shape)}, observations {list(observations.shape)}; "
            "give the same shape."
        )
    found = columns(observations)
    allowed = successors.TOLERANCE * (found.high - found.low)
    before = observations[:-1]
    for block in blocks(before):
        after = slice(block.start + 1, min(block.stop, len(before)) + 1)
        agree = checks.same_rows(nexts[:-1][block], observations[after], allowed) | ends[:-1][block]
        successors.refuse_others(path, agree, block.start)
