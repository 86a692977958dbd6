"""robomimic's layout of HDF5: `data/demo_i/{obs/*, actions, rewards, dones}`, and `mask/` with lists of demos."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sorl.data.checks import flags
from sorl.data.hdf5 import file as hdf5
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.data.recorded.keys import chosen_keys, column_names, joined
from sorl.data.recorded.rewards import RewardRule


def recording(
    path: Path, observation_keys: Sequence[str] | None, rule: RewardRule, split: str | None = None
) -> Recording:
    """The demonstrations of a file in robomimic's layout.

    As in robomimic, a step with `dones` 1 ends the task, so that no value follows; a demonstration that does not end
    with one was cut. The state after its last step is that of `next_obs`, if the file has it.

    **Arguments:** `observation_keys`, those of `obs` to concatenate (None: all vectors, in alphabetical order); `rule`,
    the source of the rewards; `split`, the name of a list in `mask/` (None: all demos; `mask/valid` is held out).

    Raises a `ValueError` if an array is missing, has another shape, or holds no real numbers.
    """
    # The first demonstration tells the keys and sizes, which all others must have.
    with hdf5.opened(path) as file:
        demos = _demos(path, file, split)
        first = f"data/{demos[0]}"
        where = f"{path}, {first}"
        demo = hdf5.group(file, first, str(path))
        observed = _observed(demo, where)
        keys, left_out = chosen_keys(where, observation_keys, {k: hdf5.is_vector(v) for k, v in observed.items()})
        signal = rule.column_to_read(
            where, "rewards" if "rewards" in demo else None, "success" if "success" in demo else None
        )
        shape = hdf5.array(demo, "actions", where).shape
        _refuse_discrete(where, shape)
        names = [name for key in keys for name in column_names(key, int(np.prod(observed[key].shape[1:])))]
        says_ends = "dones" in demo
        rate = _control_frequency(file)
        held_out = [] if split or "mask" not in file else _mask(path, file, "valid")
        steps = sum(_steps(path, file, name) for name in demos)

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        with hdf5.opened(path) as file:
            for name in demos:
                yield rule.applied(path, _episode(path, file, name, keys, signal), says_ends=says_ends)

    return Recording(
        path=path,
        form="robomimic HDF5",
        read=read,
        observation_names=tuple(names),
        action_names=tuple(column_names("actions", int(np.prod(shape[1:])))),
        files=(path,),
        steps=steps,
        frame_rate=rate,
        held_out=frozenset(held_out),
        left_out=tuple(f"obs/{key}" for key in left_out),
        details={"observation_keys": keys, "reward": rule.text(), "split": split},
    )


def _observed(demo: Any, where: str) -> dict[str, Any]:
    """All observations of a demonstration by their keys."""
    if "obs" not in demo and "states" in demo:
        raise ValueError(
            f"{where} has simulator states but no observations; write them with robomimic's dataset_states_to_obs.py."
        )
    return hdf5.leaves(hdf5.group(demo, "obs", where), where)


def _demos(path: Path, file: Any, split: str | None) -> list[str]:
    """The names of the demonstrations, in the order of their numbers."""
    every = list(hdf5.group(file, "data", str(path)))
    if split is None:
        chosen = every
    else:
        chosen = _mask(path, file, split)
        if not chosen:
            masks = hdf5.member(file, "mask", str(path)) or {}
            raise ValueError(f"{path} has no split {split!r}; it has {', '.join(masks) or 'none'}.")
    if not chosen:
        raise ValueError(f"{path} holds no demonstration in data; give a file with at least one.")
    return sorted(chosen, key=lambda name: (len(name), name))


def _mask(path: Path, file: Any, name: str) -> list[str]:
    """The demonstrations in a list of `mask/`; empty without it."""
    found = hdf5.member(file, f"mask/{name}", str(path))
    if found is None:
        return []
    if not hasattr(found, "dtype") or found.dtype.kind not in "SO" or len(found.shape or ()) != 1:
        raise ValueError(f"mask/{name} of {path} is no list of names; repair the list.")
    names = [entry.decode(errors="replace") if isinstance(entry, bytes) else str(entry) for entry in found[:]]
    unknown = [one for one in names if one not in file["data"]]
    if unknown:
        raise ValueError(f"mask/{name} of {path} names {unknown[0]!r}, which is not in data; repair the list.")
    if twice := [one for one, count in Counter(names).items() if count > 1]:
        raise ValueError(f"mask/{name} of {path} names {twice[0]!r} twice; name each demonstration once.")
    return names


def _episode(path: Path, file: Any, name: str, keys: Sequence[str], signal: str | None) -> LoggedEpisode:
    where = f"{path}, data/{name}"
    demo = hdf5.group(file, f"data/{name}", str(path))
    actions = hdf5.array(demo, "actions", where)[:]
    observations = joined(where, {key: hdf5.array(demo, f"obs/{key}", where)[:] for key in keys})
    after = {key: hdf5.member(demo, f"next_obs/{key}", where) for key in keys}
    if all(found is not None and len(found) for found in after.values()) and len(observations) == len(actions):
        following = {key: hdf5.array(demo, f"next_obs/{key}", where) for key in keys}
        for key, found in following.items():
            if len(found) != len(actions):
                raise ValueError(
                    f"next_obs/{key} of {where} has {len(found)} rows for {len(actions)} steps; give the observation "
                    "after each step."
                )
        last = joined(where, {key: found[-1:] for key, found in following.items()})
        if last.shape[1] != observations.shape[1]:
            raise ValueError(
                f"obs of {where} has {observations.shape[1]} columns, but next_obs {last.shape[1]}; give both the same."
            )
        observations = np.concatenate([observations, last])
    rewards = np.zeros(len(actions), np.float32) if signal is None else hdf5.array(demo, signal, where)[:].reshape(-1)
    if "dones" in demo:
        terminated = flags(path, f"dones of {name}", hdf5.array(demo, "dones", where)[:])
    else:
        terminated = np.zeros(len(actions), np.bool_)
    return LoggedEpisode(observations, actions, rewards, terminated, not terminated[-1:].any(), name)


def _steps(path: Path, file: Any, name: str) -> int:
    where = f"{path}, data/{name}"
    return len(hdf5.array(hdf5.group(file, f"data/{name}", str(path)), "actions", where))


def _refuse_discrete(where: str, shape: tuple[int, ...]) -> None:
    if len(shape) == 1:
        raise ValueError(
            f"actions of {where} have shape {list(shape)}, as discrete actions have; give continuous ones, "
            "[steps, size]."
        )


def _control_frequency(file: Any) -> float | None:
    """The steps per second that robosuite's arguments state."""
    text = file["data"].attrs.get("env_args")
    try:
        rate = json.loads(text)["env_kwargs"]["control_freq"] if isinstance(text, str | bytes) else None
    except (ValueError, KeyError, TypeError):  # other environments state none
        return None
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None
