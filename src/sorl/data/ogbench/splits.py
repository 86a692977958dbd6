"""Reads one split of an OGBench data set, from an npz file or a data directory, and judges its states for a task."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from sorl.data import checks, records
from sorl.data.generation.assembling import split_path
from sorl.data.host import HostDataset, Rows
from sorl.data.loaded import to_device
from sorl.data.mapped.logs import origin, read_arrays, size as mapped_size
from sorl.data.mapped.manifest import is_data_directory
from sorl.data.paging import release
from sorl.data.residence import Chosen, Residence, Size, choose
from sorl.data.rewards import sparse
from sorl.data.transitions import Dataset
from sorl.environments.names import Task


JUDGED_ROWS = 1 << 18
"""Number of rows of a mapped set that are judged at once."""


class Split(NamedTuple):
    """One split, judged for a task."""

    rows: Rows
    ends: Bool[np.ndarray, " rows"]
    origin: dict[str, Any]
    """The record of the file or directory; `source` is "unrecorded" if it has none."""
    residence: Chosen

    def dataset(self) -> Dataset | HostDataset:
        """Its transitions, where they stay; a trajectory's last row has no successor."""
        rows = self.rows
        if self.residence.residence == "device":
            masks = 1 - rows.terminated.astype(np.float32)
            return to_device(rows.observations, rows.actions, rows.rewards, masks, ~self.ends)
        every = np.ones(len(rows.lengths), np.bool_)
        dataset = HostDataset.of(rows, every, ~every, _as_they_are, _as_they_are)
        assert dataset is not None, "a split without transitions was refused"
        return dataset


def stored_split(directory: pathlib.Path, dataset: str, split: str) -> pathlib.Path:
    """The path of a split: that of its data directory if there is one, else that of the npz file, if there or not."""
    file = split_path(directory, dataset, split)
    folder = file.with_suffix("")
    return folder if is_data_directory(folder) else file


def read_split(
    path: pathlib.Path, environment: Any, task: Task, residence: Residence | Chosen, *, sparse_rewards: bool
) -> Split:
    """Reads and judges a split; refuses what is damaged or unsuitable before the slow judging.

    **Arguments:** `residence`, of the training split, or the one that was chosen for it.

    Raises a `ValueError` for bad data, and for a residence that cannot be had.
    """
    sizes = _sizes(environment)
    if is_data_directory(path):
        split = _read_directory(path, environment, task, residence, sizes)
    else:
        split = _read_file(path, environment, task, residence, sizes)
    if split.ends.all():
        raise ValueError(f"{path} holds no transition, since every row ends a trajectory; give longer trajectories.")
    if sparse_rewards:
        split = split._replace(rows=split.rows._replace(rewards=sparse(split.rows.rewards)))
    return split


def _read_file(
    path: pathlib.Path, environment: Any, task: Task, residence: Residence | Chosen, sizes: dict[str, int]
) -> Split:
    record = records.verified(path)
    arrays = checks.read_arrays(path, (*sizes, "terminals"))
    checks.refuse_wrong_shapes(path, arrays, sizes)
    _refuse_unsuitable(path, arrays, sizes)
    ends = checks.flags(path, "terminals", arrays["terminals"])
    checks.refuse_open_end(path, ends)
    rewards, terminated = _judged(environment, task, arrays)
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    # A file without a record was put there by the user; its fingerprint identifies it all the same.
    found = {"source": "unrecorded", **(record or records.fingerprint(path))}
    observations, actions = arrays["observations"], arrays["actions"]
    if not isinstance(residence, Chosen):
        raw = observations.nbytes + actions.nbytes
        size = Size(len(ends), observations.shape[1], actions.shape[1], raw_bytes=raw, mappable=False)
        residence = choose(residence, size, path)
    return Split(Rows(observations, actions, rewards, terminated, lengths, None), ends, found, residence)


def _read_directory(
    path: pathlib.Path, environment: Any, task: Task, residence: Residence | Chosen, sizes: dict[str, int]
) -> Split:
    if not isinstance(residence, Chosen):
        residence = choose(residence, mapped_size(path, tuple(sizes)), path)
    manifest, arrays = read_arrays(path, tuple(sizes), in_memory=residence.residence != "disk")
    _refuse_unsuitable(path, arrays, sizes)
    # Rewards and terminations are computed, and so stay in memory: 5 bytes a row.
    rewards, terminated = np.empty(manifest.rows, np.float32), np.empty(manifest.rows, np.bool_)
    for start in range(0, manifest.rows, JUDGED_ROWS):
        rows = slice(start, start + JUDGED_ROWS)
        part = {name: arrays[name][rows] for name in sizes if name not in ("observations", "actions")}
        rewards[rows], terminated[rows] = _judged(environment, task, part)
        release(*part.values())
    lengths = arrays["episode_lengths"]
    ends = np.zeros(manifest.rows, np.bool_)
    ends[np.cumsum(lengths) - 1] = True
    found = {"source": "unrecorded", **manifest.provenance, **origin(manifest)}
    rows = Rows(arrays["observations"], arrays["actions"], rewards, terminated, np.array(lengths), None)
    return Split(rows, ends, found, residence)


def _judged(
    environment: Any, task: Task, arrays: checks.Arrays
) -> tuple[Float[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    """The reward and whether the task ends, of each row's own state; OGBench's function computes them."""
    from ogbench.relabel_utils import relabel_dataset

    rows = dict(arrays)
    relabel_dataset(task.gymnasium_id, environment, rows)
    return rows["rewards"], rows["masks"] == 0


def _refuse_unsuitable(path: pathlib.Path, arrays: checks.Arrays, sizes: dict[str, int]) -> None:
    for key, size in sizes.items():
        if arrays[key].ndim != 2 or arrays[key].shape[1] != size:
            raise ValueError(
                f"{key} of {path} have size {arrays[key].shape[-1]}, but the environment's have {size}; "
                "give the data of that environment."
            )
    checks.refuse_not_finite(path, arrays)
    checks.refuse_large_actions(path, arrays["actions"])


def _sizes(environment: Any) -> dict[str, int]:
    """The size of each array's vectors, by key; environments with buttons also need `button_states`."""
    unwrapped = environment.unwrapped
    sizes = {
        "observations": environment.observation_space.shape[0],
        "actions": environment.action_space.shape[0],
        "qpos": unwrapped.model.nq,
    }
    buttons = getattr(unwrapped, "_num_buttons", 0)
    return {**sizes, "button_states": buttons} if buttons else sizes


def _as_they_are(raw: Shaped[np.ndarray, "rows size"]) -> Shaped[np.ndarray, "rows size"]:
    return raw
