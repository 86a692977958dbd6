"""D4RL's layout of HDF5: arrays over all steps, with `terminals` and `timeouts` (Fu et al. 2020, "D4RL")."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sorl.data.checks import flags, refuse_unequal_rows
from sorl.data.hdf5 import file as hdf5
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.data.recorded.keys import chosen_keys, column_names, joined
from sorl.data.recorded.rewards import SUCCESS, RewardRule
from sorl.data.recorded.rows import Rows, episodes_of


BLOCK_BYTES = 1 << 23
"""Size of the blocks in which rows are read."""
FIELDS = ("actions", "rewards", "terminals", "timeouts", "next_observations")


def recording(path: Path, observation_keys: Sequence[str] | None, rule: RewardRule) -> Recording:
    """The data of a file in D4RL's layout.

    **Arguments:** `observation_keys`, the arrays to concatenate as observations, such as `observations` and
    `infos/goal` (None: `observations`); `rule`, the source of the rewards.

    Raises a `ValueError` if an array is missing, has another shape, or holds no real numbers.
    """
    with hdf5.opened(path) as file:
        leaves = hdf5.leaves(file, str(path))
        known = {key: hdf5.is_vector(found) for key, found in leaves.items() if key not in FIELDS}
        keys, _ = chosen_keys(path, observation_keys, known, default=["observations"])
        success = next((key for key in SUCCESS if key in leaves), None)
        signal = rule.column_to_read(path, "rewards" if "rewards" in leaves else None, success)
        # The state after a step is known only for D4RL's own observations.
        after = ["next_observations"] if keys == ["observations"] and "next_observations" in leaves else []
        used = [*keys, "actions", "terminals", "timeouts", *after, *([signal] if signal else [])]
        shapes = {key: hdf5.array(file, key, str(path)).shape for key in used}
    _refuse_wrong_shapes(path, shapes, [*keys, "actions", *after])
    sizes = {key: int(np.prod(shape[1:])) for key, shape in shapes.items()}

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        with hdf5.opened(path) as file:
            blocks = _blocks(path, file, keys, used, signal, bool(after))
            for episode in episodes_of(path, blocks, notes, open_end=True):
                yield rule.applied(path, episode, says_ends=True)

    return Recording(
        path=path,
        form="D4RL HDF5",
        read=read,
        observation_names=tuple(name for key in keys for name in column_names(key, sizes[key])),
        action_names=tuple(column_names("actions", sizes["actions"])),
        files=(path,),
        steps=shapes["actions"][0],
        left_out=tuple(key for key in leaves if key not in used),
        details={"observation_keys": keys, "reward": rule.text()},
    )


def _refuse_wrong_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], wide: Sequence[str]) -> None:
    if len(shapes["actions"]) == 1:
        raise ValueError(
            f"actions of {path} have shape {list(shapes['actions'])}, as discrete actions have; give continuous ones, "
            "[rows, size]."
        )
    for key, shape in shapes.items():
        if len(shape) > 2 or (key not in wide and len(shape) == 2 and shape[1] != 1):
            form = "[rows, size]" if key in wide else "[rows]"
            raise ValueError(f"{key} of {path} has shape {list(shape)}; give {form}.")
    refuse_unequal_rows(path, shapes)


def _blocks(
    path: Path, file: Any, keys: Sequence[str], used: Sequence[str], signal: str | None, has_successors: bool
) -> Iterator[Rows]:
    arrays = {key: hdf5.array(file, key, str(path)) for key in used}
    count = len(arrays["actions"])
    width = sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in arrays.values())
    step = max(1, BLOCK_BYTES // max(1, width))
    for start in range(0, count, step):
        block = {key: array[start : start + step] for key, array in arrays.items()}
        terminated, timed_out = (flags(path, key, block[key], start) for key in ("terminals", "timeouts"))
        yield Rows(
            observations=joined(path, {key: block[key] for key in keys}),
            actions=block["actions"],
            rewards=np.zeros(len(terminated), np.float32) if signal is None else block[signal].reshape(-1),
            terminated=terminated,
            ends=terminated | timed_out,
            truncated=timed_out,
            successors=block["next_observations"] if has_successors else None,
        )
