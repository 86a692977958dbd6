"""Loads OGBench's single-task data sets: finds or downloads them, relabels them with OGBench's own function."""

import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sorl.data import checks, records
from sorl.data.columns import columns
from sorl.data.generation.generate import SPLITS, split_path
from sorl.data.generation.recipes import RECIPES, GeneratedSet
from sorl.data.loaded import LoadedData, to_device
from sorl.data.normalisation import Normalisation
from sorl.data.ogbench.download import OFFICIAL_HOST, fetch
from sorl.data.rewards import sparse
from sorl.data.summary import summarise
from sorl.data.transitions import Dataset
from sorl.environments.names import Task
from sorl.environments.simulators import make_environment, quiet
from sorl.system.files import expanded


OGBENCH_CACHE = pathlib.Path("~/.ogbench/data")
"""The directory to which OGBench itself downloads its files."""


def load_ogbench(
    env_name: str,
    *,
    data_dir: pathlib.Path | None = None,
    generated: GeneratedSet | None = None,
    mirrors: Sequence[str] = (),
    download: bool = True,
    sparse_rewards: bool = False,
) -> LoadedData:
    """Loads the data of one of OGBench's single-task problems.

    **Arguments:** `env_name`, such as `cube-single-play-singletask-task1-v0`; `data_dir`, a directory to search first;
    `generated`, the generated set to use instead of the official one; `mirrors`, base addresses to download from if
    the official host fails; `download`, whether missing files may be downloaded; `sparse_rewards`, whether every reward
    other than 0 becomes -1, while the masks stay as they are.

    **Returns:** `LoadedData`. As in OGBench, a transition's reward and mask judge the state that it starts from.

    The files come from the first directory that has both: `data_dir`, then the directory of `generated` if that is
    given, else OGBench's cache. Missing files are downloaded to `data_dir`, or else to OGBench's cache; a generated set
    is never downloaded.

    Raises a `ValueError` for an unknown name or bad data, a `FileNotFoundError` if no directory has the files and they
    may not be downloaded, and a `ConnectionError` if no host sends them.
    """
    task = Task.parse(env_name)
    directory = _find(task, data_dir, generated, mirrors, download)
    with _single_task_environment(task) as environment:
        (train, provenance), (validation, validation_provenance) = (
            _load_split(split_path(directory, task.dataset, split), environment, task, sparse_rewards)
            for split in SPLITS
        )
    del validation_provenance["summary"]
    provenance["summary"]["validation"] = {name: validation_provenance[name] for name in ("episodes", "transitions")}
    return LoadedData(
        train=train,
        validation=validation,
        normalisation=Normalisation.identity(train.observations.shape[1], train.actions.shape[1]),
        provenance={**provenance, "validation": validation_provenance},
    )


def _find(
    task: Task, data_dir: pathlib.Path | None, generated: GeneratedSet | None, mirrors: Sequence[str], download: bool
) -> pathlib.Path:
    """The directory that holds both splits, after downloading them if they are missing."""
    places = [] if data_dir is None else [expanded(data_dir, "give its full name")]
    if not places or _missing(places[0], task):
        places.append(generated.directory if generated else expanded(OGBENCH_CACHE, "set HOME, or give --data-dir"))
    for directory in places:
        if not _missing(directory, task):
            return directory
    if generated is not None:
        raise FileNotFoundError(
            f"{generated.dataset} with {generated.episodes} generated episodes is not in {_listed(places)}; "
            f"run `{generated.command}` to generate it."
        )
    if not download:
        way = _way(task, "allow it with --data.download")
        raise FileNotFoundError(f"{task.dataset} is not in {_listed(places)}, and may not be downloaded; {way}.")
    return _download(task, places[0], mirrors)


def _download(task: Task, directory: pathlib.Path, mirrors: Sequence[str]) -> pathlib.Path:
    try:
        for path in _missing(directory, task):
            fetch(path.name, directory, (OFFICIAL_HOST, *mirrors))
    except ConnectionError as error:
        way = _way(task, "name a host to download it from with --data.mirrors")
        raise ConnectionError(
            f"{task.dataset} is not in {directory} and could not be downloaded ({error}); {way}."
        ) from error
    return directory


def _missing(directory: pathlib.Path, task: Task) -> list[pathlib.Path]:
    paths = [split_path(directory, task.dataset, split) for split in SPLITS]
    return [path for path in paths if not path.exists()]


def _way(task: Task, last: str) -> str:
    """Advice for a user whose data are missing; `last` is the alternative to name last."""
    named = f"name the directory that holds it with --data-dir, or {last}"
    if task.dataset not in RECIPES:
        return named
    wanted = GeneratedSet.of(task.dataset)
    return f"generate it with `{wanted.command}` and add --data.episodes {wanted.episodes}, {named}"


def _listed(places: Sequence[pathlib.Path]) -> str:
    return " or ".join(map(str, places))


def _load_split(
    path: pathlib.Path, environment: Any, task: Task, sparse_rewards: bool
) -> tuple[Dataset, dict[str, Any]]:
    """Loads one split's file, and **returns** its transitions and their provenance."""
    # Refuse damaged or unsuitable files before the slow relabelling.
    record = records.verified(path)
    rows = _checked_rows(path, environment)
    ends = checks.flags(path, rows, "terminals")
    checks.refuse_open_end(path, ends)

    from ogbench.relabel_utils import relabel_dataset

    relabel_dataset(task.gymnasium_id, environment, rows)  # judges each row's own state; adds `rewards` and `masks`
    if sparse_rewards:
        rows["rewards"] = sparse(rows["rewards"])
    if ends.all():
        raise ValueError(f"{path} holds no transition, since every row ends a trajectory; give longer trajectories.")
    dataset = to_device(rows["observations"], rows["actions"], rows["rewards"], rows["masks"], ~ends)
    # A file without a record was put there by the user; its fingerprint identifies it all the same.
    provenance = {
        "env_name": task.env_name,
        "path": str(path),
        "source": "unrecorded",
        **(records.fingerprint(path) if record is None else record),
        **({"sparse_rewards": True} if sparse_rewards else {}),
        "episodes": int(ends.sum()),
        "transitions": len(dataset),
        "summary": summarise(
            columns(rows["observations"]),
            columns(rows["actions"]),
            rows["rewards"],
            ends,
            rows["masks"] == 0,
            transitions=len(dataset),
        ),
    }
    return dataset, provenance


def _checked_rows(path: pathlib.Path, environment: Any) -> checks.Arrays:
    sizes = _sizes(environment)
    rows = checks.read_arrays(path, (*sizes, "terminals"))
    checks.refuse_wrong_shapes(path, rows, sizes)
    for key, size in sizes.items():
        if rows[key].shape[1] != size:
            raise ValueError(
                f"{key} of {path} have size {rows[key].shape[1]}, but the environment's have {size}; "
                "give the data of that environment."
            )
    checks.refuse_not_finite(path, rows)
    checks.refuse_large_actions(path, rows["actions"])
    return rows


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


@contextmanager
def _single_task_environment(task: Task) -> Iterator[Any]:
    """A context with OGBench's environment for relabelling; afterwards numpy's global generator is as before."""
    generator_state = np.random.get_state()
    with quiet():
        environment = make_environment(task.gymnasium_id)
        environment.reset()  # some environments have no model before
        try:
            yield environment
        finally:
            environment.close()
            np.random.set_state(generator_state)
