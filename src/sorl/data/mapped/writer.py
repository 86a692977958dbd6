"""Writes data directories, episode by episode in constant memory, and joins those that were written in parallel."""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from jaxtyping import Shaped

from sorl.data import checks
from sorl.data.mapped.array_writer import ArrayWriter, written_at_once
from sorl.data.mapped.manifest import ARRAY_NAME, EPISODE_ARRAYS, STEPS_NEEDED, ArrayFile, Manifest, read_manifest
from sorl.data.mapped.reader import open_arrays
from sorl.data.recorded.origin import held_out, refuse_other_columns
from sorl.system.files import whole_directory


LARGEST = {"rewards": checks.LARGEST_REWARD, "actions": checks.LARGEST_ACTION}
CHECKED = ("observations", "actions", "rewards", "terminations")
"""The arrays whose shapes and numbers are checked."""
Range = tuple[Sequence[float], Sequence[float]]
Kinds = Mapping[str, tuple[np.dtype, tuple[int, ...]]]


class MappedWriter:
    """A data directory that is being written; as a context manager, it exists only when the block ends without error.

    ```python
    with MappedWriter("big", provenance={"robot": "left arm"}) as writer:
        for episode in episodes:
            writer.append(
                {"observations": .., "actions": .., "rewards": .., "terminations": ..},
                final_observation=..,
            )
    ```

    **Arguments:** `path`, a directory that does not exist yet; `provenance`, the origin of the data, JSON-able;
    `action_range`, the actions that map to -1 and 1, if they are known (`action_low` and `action_high` of own logs).

    Raises a `FileExistsError` if `path` exists, another `OSError`, one sentence, if the system refuses a write, and a
    `ValueError` for an action range that is none, or a provenance that is not JSON-able.
    """

    def __init__(
        self,
        path: pathlib.Path | str,
        *,
        provenance: Mapping[str, Any] | None = None,
        action_range: Range | None = None,
    ):
        self.path = pathlib.Path(path)
        self.provenance = dict(provenance or {})
        """The origin of the data, which may be completed while they are written."""
        _refuse_no_json(self.path, self.provenance)  # not at the end, where all that was written would be lost
        self._range = None if action_range is None else _checked_range(self.path, action_range)
        self._files = ExitStack()
        self._arrays: dict[str, ArrayWriter] = {}
        self._lengths: list[int] = []

    def __enter__(self) -> "MappedWriter":
        self._folder = self._files.enter_context(whole_directory(self.path))
        return self

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            try:
                self._finish()
            except BaseException as failure:
                self._files.__exit__(type(failure), failure, failure.__traceback__)
                raise
        return self._files.__exit__(*error)

    @property
    def rows(self) -> int:
        """Number of steps so far."""
        return sum(self._lengths)

    @property
    def episodes(self) -> int:
        """Number of episodes so far."""
        return len(self._lengths)

    def append(
        self,
        episode: Mapping[str, Shaped[np.ndarray, "steps ..."]],
        final_observation: Shaped[np.ndarray, " observation"] | None = None,
    ) -> None:
        """Adds one whole episode, in the user's units and dtypes.

        **Arguments:** `episode`, arrays with one row a step: `observations` [steps, size] and `actions` [steps, size];
        for own logs also `rewards` [steps] and `terminations` [steps], 1 where a step terminated the episode; others by
        lower-case names are kept too. All episodes need the same arrays, of the same dtypes and sizes.
        `final_observation`, what was seen after the last step, before any reset (None: not known; then the last step is
        not trained on unless it terminated the episode).

        Raises a `ValueError`, one sentence, for an episode that does not fit or is not finite.
        """
        where = pathlib.Path(f"episode {self.episodes} of {self.path}")
        rows = {name: np.asarray(values) for name, values in episode.items()}
        self._refuse_bad(where, rows)
        if "terminations" in rows:
            rows["terminations"] = checks.flags(where, "terminations", rows["terminations"])
        self._refuse_other_arrays(where, _kinds(rows), EPISODE_ARRAYS)
        observations = rows["observations"]
        final = observations[-1:] if final_observation is None else np.asarray(final_observation)[None]
        if final.shape[1:] != observations.shape[1:]:
            raise ValueError(
                f"The final observation of {where} has shape {list(final.shape[1:])}; give "
                f"{list(observations.shape[1:])}."
            )
        checks.refuse_not_finite(where, {"final_observation": final})
        rows["final_observations"] = _of_dtype(where, final, observations.dtype)
        rows["final_known"] = np.array([final_observation is not None])
        self._refuse_other_arrays(where, _kinds(rows))
        for name, values in rows.items():
            self._array(name, values.dtype, values.shape[1:]).append(values)
        self._lengths.append(len(observations))

    def append_directory(self, path: pathlib.Path | str) -> None:
        """Adds all episodes of another data directory, which the system copies without passing them through memory."""
        path = pathlib.Path(path)
        manifest, arrays = open_arrays(path)
        self._refuse_other_range(path, manifest.arrays["actions"].shape[1])
        copied = {name: array for name, array in manifest.arrays.items() if name != "episode_lengths"}
        self._refuse_other_arrays(path, {name: (array.dtype, array.shape[1:]) for name, array in copied.items()})
        for name, array in copied.items():
            self._array(name, array.dtype, array.shape[1:]).append_file(path / f"{name}.npy", array)
        self._lengths += arrays["episode_lengths"].tolist()

    def _refuse_bad(self, where: pathlib.Path, rows: checks.Arrays) -> None:
        missing = [name for name in STEPS_NEEDED if name not in rows]
        wrong = [name for name in rows if not ARRAY_NAME.fullmatch(name) or name in EPISODE_ARRAYS]
        if missing:
            raise ValueError(f"{where} lacks {', '.join(missing)}; give observations and actions.")
        if "terminals" in rows and "terminations" not in rows:
            raise ValueError(
                f"{where} has an array named terminals; name it terminations: 1 where a step terminated the episode."
            )
        if wrong:
            raise ValueError(f"{where} has an array named {wrong[0]!r}; give lower-case names of letters and digits.")
        checks.refuse_wrong_shapes(where, {name: rows[name] for name in rows if name in CHECKED}, STEPS_NEEDED)
        for name, values in rows.items():
            if values.dtype.kind not in "fiub" or values.shape[:1] != rows["observations"].shape[:1]:
                raise ValueError(
                    f"{name} of {where} have dtype {values.dtype} and shape {list(values.shape)}; give a number or a "
                    f"row of numbers for each of the {len(rows['observations'])} steps."
                )
            if 0 in values.shape:
                raise ValueError(f"{name} of {where} have shape {list(values.shape)}; give at least one column.")
        self._refuse_other_range(where, rows["actions"].shape[1])
        checks.refuse_not_finite(where, {name: values for name, values in rows.items() if name in CHECKED})
        for name, largest in LARGEST.items():
            if name in rows:
                checks.refuse_large(where, name, rows[name], largest)

    def _refuse_other_range(self, where: pathlib.Path, actions: int) -> None:
        if self._range is not None and len(self._range[0]) != actions:
            raise ValueError(
                f"The action range of {self.path} is of {len(self._range[0])} actions, and {where} has {actions}; give "
                "a finite low <= high for each action."
            )

    def _refuse_other_arrays(self, where: pathlib.Path, found: Kinds, without: Sequence[str] = ()) -> None:
        """Raises a `ValueError` unless the arrays are those of the episodes before, `without` some of these."""
        expected = {name: (array.dtype, array.row) for name, array in self._arrays.items() if name not in without}
        for name in [*expected, *found] if expected else []:
            if expected.get(name) != found.get(name):
                had, has = (
                    "no such array" if one is None else f"{one[0]} of shape {list(one[1])} a row"
                    for one in (expected.get(name), found.get(name))
                )
                raise ValueError(f"{name} of {where}: {has}, but episodes before it have {had}; give all alike.")

    def _array(self, name: str, dtype: np.dtype, row: tuple[int, ...]) -> ArrayWriter:
        if name not in self._arrays:
            array = ArrayWriter(self._folder / f"{name}.npy", dtype, row)
            self._files.callback(array.close)
            self._arrays[name] = array
        return self._arrays[name]

    def _finish(self) -> None:
        """Completes all files, and writes the description last."""
        if not self._lengths:
            raise ValueError(f"{self.path} would hold no episode; append at least one.")
        arrays: dict[str, ArrayFile] = {name: array.finish() for name, array in self._arrays.items()}
        lengths = np.array(self._lengths, np.int64)
        arrays["episode_lengths"] = written_at_once(self._folder / "episode_lengths.npy", lengths)
        Manifest(arrays, self._range, self.provenance).write(self._folder)


def _checked_range(path: pathlib.Path, found: Range) -> tuple[tuple[float, ...], tuple[float, ...]]:
    low, high = (tuple(float(number) for number in bound) for bound in found)
    if len(low) != len(high) or not np.all(np.isfinite([low, high])) or not np.all(np.less_equal(low, high)):
        raise ValueError(f"The action range of {path} is {found}; give a finite low <= high for each action.")
    return low, high


def _refuse_no_json(path: pathlib.Path, provenance: Mapping[str, Any]) -> None:
    for name, value in provenance.items():
        try:
            json.dumps({name: value})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name!r} in the provenance of {path} is {value!r} ({error}); give texts, numbers, lists and the like."
            ) from error


def _of_dtype(where: pathlib.Path, final: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The final observation in the observations' dtype; floats are rounded, whole numbers must stay the same."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = final.astype(dtype, copy=False)
    if not np.isfinite(stored).all() or (dtype.kind in "iub" and not np.array_equal(stored, final)):
        raise ValueError(
            f"The final observation of {where} is {final[0].tolist()}, which {dtype}, the dtype of its observations, "
            "cannot hold; give both in a wider one."
        )
    return stored


def _kinds(rows: checks.Arrays) -> Kinds:
    """The dtype of each array, and the shape of one of its rows."""
    return {name: (values.dtype, values.shape[1:]) for name, values in rows.items()}


def join(
    path: pathlib.Path | str,
    shards: Sequence[pathlib.Path | str],
    *,
    provenance: Mapping[str, Any] | None = None,
    keep: bool = False,
) -> pathlib.Path:
    """Makes one data directory of several, which processes can write in parallel; the system copies their arrays.

    **Arguments:** `shards`, data directories with the same arrays, in the order of their episodes; `provenance`, that
    of the result (None: that of the first, with the episodes that each of them keeps for validation); `keep`, whether
    the shards are kept; otherwise they are removed at the end.

    **Returns:** the directory. Raises as `MappedWriter` and `read_manifest` do, and a `ValueError` if there is no
    shard, if one is named twice, is a link that would be removed, or holds another or the result, or if their action
    ranges or the order of their columns differ.
    """
    if isinstance(shards, str | pathlib.Path):
        raise ValueError(f"The shards are {shards}, one name; give a list of data directories.")
    paths = [pathlib.Path(shard) for shard in shards]
    _refuse_none_or_twice(path, paths)
    if not keep and (links := [shard for shard in paths if shard.is_symlink()]):
        raise ValueError(
            f"The shard {links[0]} is a link, which cannot be removed; name its directory, or keep shards."
        )
    manifests = [read_manifest(shard) for shard in paths]
    first = manifests[0]
    for shard, manifest in zip(paths, manifests, strict=True):
        if manifest.action_range != first.action_range:
            raise ValueError(
                f"The action range of {shard} is {manifest.action_range}, that of {paths[0]} {first.action_range}; "
                "write all shards with the same."
            )
        refuse_other_columns(shard, manifest.provenance, first.provenance, str(paths[0]))
    kept = _joined_provenance(manifests) if provenance is None else provenance
    with MappedWriter(path, provenance=kept, action_range=first.action_range) as writer:
        for shard in paths:
            writer.append_directory(shard)
    if not keep:
        for shard in paths:
            shutil.rmtree(shard)
    return pathlib.Path(path)


def _joined_provenance(shards: Sequence[Manifest]) -> Mapping[str, Any]:
    """The provenance of the first shard, with the held-out episodes of all by their numbers in the result."""
    numbers, before = [], 0
    for shard in shards:
        numbers += [before + number for number in held_out(shard.provenance.get("about"))]
        before += shard.episodes
    first = shards[0].provenance
    if not numbers:
        return first
    about = first.get("about")
    return {**first, "about": {**(about if isinstance(about, dict) else {}), "held_out": numbers}}


def _refuse_none_or_twice(path: pathlib.Path | str, shards: Sequence[pathlib.Path]) -> None:
    if not shards:
        raise ValueError(f"There is no shard to join to {path}; give at least one data directory.")
    places = [shard.resolve() for shard in shards]
    twice = [shard for shard, place in zip(shards, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ValueError(f"The shard {twice[0]} is named twice; name each once.")
    for inner in (path, *shards):
        for shard, place in zip(shards, places, strict=True):
            if place in pathlib.Path(inner).resolve().parents:
                raise ValueError(f"{inner} is inside the shard {shard}, which is removed; give a place beside it.")
