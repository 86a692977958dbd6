"""The recording that `sorl.inspect` reads: the user's own data by their path, or OGBench's by the task's name."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sorl.data.generation.source import Generated
from sorl.data.loaded import LoadedData
from sorl.data.mapped.manifest import NAME, is_data_directory
from sorl.data.ogbench.source import Ogbench
from sorl.data.own_logs.load import validation_path
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.data.recorded.keys import column_names
from sorl.data.sources import source_of
from sorl.environments.names import Task


def recording_of(
    data: str, options: Mapping[str, Any], *, directory: Path | None = None, episodes: int | None = None
) -> Recording:
    """The recording that a user names.

    **Arguments:** `options`, those of formats; `directory` and `episodes`, for OGBench's data as in `DataConfig`.

    Raises a `ValueError`, one sentence, for data that cannot be used.
    """
    path = Path(data)
    if path.exists() or path.suffix or not _is_task(data):
        found = source_of(path, **options).recording()
        beside = validation_path(found.path)
        return dataclasses.replace(found, beside=beside) if beside.exists() else found
    if episodes is None:
        return recording_of_loaded(Ogbench(data, directory, residence="device").load())
    return recording_of_loaded(Generated(data, episodes, residence="device").load())


def _is_task(name: str) -> bool:
    try:
        Task.parse(name)
    except ValueError:
        return False
    return True


def recording_of_loaded(loaded: LoadedData) -> Recording:
    """Loaded data of OGBench, whose units are the environment's, as episodes."""
    parts = [part for part in (loaded.train, loaded.validation) if part is not None]
    counts = [len(part.observations) - len(part.starts) for part in parts]

    def read(notes: list[str]) -> Iterator[LoggedEpisode]:
        number = 0
        for part in parts:
            arrays = {name: np.asarray(getattr(part, name)) for name in ("observations", "actions", "rewards", "masks")}
            # A row without a successor is the last state of its trajectory, not a step.
            ends = np.ones(len(arrays["rewards"]), np.bool_)
            ends[np.asarray(part.starts)] = False
            first = 0
            for last in np.flatnonzero(ends):
                rows = slice(first, last)
                terminated = arrays["masks"][rows] == 0
                states = arrays["observations"][first : last + 1]
                if last > first:
                    yield LoggedEpisode(
                        states,
                        arrays["actions"][rows],
                        arrays["rewards"][rows],
                        terminated,
                        not bool(terminated[-1]),
                        f"episode {number}",
                    )
                number, first = number + 1, int(last) + 1

    observation_size, action_size = loaded.train.sizes
    path = Path(loaded.provenance["path"])
    return Recording(
        path=path,
        form=f"OGBench, {loaded.provenance['source']}",
        read=read,
        observation_names=tuple(column_names("observations", observation_size)),
        action_names=tuple(column_names("actions", action_size)),
        files=(path / NAME if is_data_directory(path) else path,),
        steps=sum(len(part) for part in parts),
        environment=loaded.provenance["env_name"],
        held_out=frozenset(f"episode {number}" for number in range(counts[0], sum(counts))),
        details={"reward": "relabelled for the task"},
    )
