"""Loads OGBench's single-task data sets: finds or downloads them, relabels them with OGBench's own function."""

import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sorl.data.columns import columns
from sorl.data.generation.assembling import SPLITS
from sorl.data.generation.recipes import RECIPES, GeneratedSet
from sorl.data.host import HostDataset
from sorl.data.loaded import LoadedData
from sorl.data.normalisation import Normalisation
from sorl.data.ogbench.download import OFFICIAL_HOST, fetch
from sorl.data.ogbench.splits import Split, read_split, stored_split
from sorl.data.residence import Chosen, Residence
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
    residence: Residence = "device",
) -> LoadedData:
    """Loads the data of one of OGBench's single-task problems.

    **Arguments:** `env_name`, such as `cube-single-play-singletask-task1-v0`; `data_dir`, a directory to search first;
    `generated`, the generated set to use instead of the official one; `mirrors`, base addresses to download from if
    the official host fails; `download`, whether missing files may be downloaded; `sparse_rewards`, whether every reward
    other than 0 becomes -1, while the masks stay as they are; `residence`, where the data stay.

    **Returns:** `LoadedData`. As in OGBench, a transition's reward and mask judge the state that it starts from.

    Each split is an npz file or a data directory of the same name. They come from the first directory that has both:
    `data_dir`, then the directory of `generated` if that is given, else OGBench's cache. Missing files are downloaded
    to `data_dir`, or else to OGBench's cache; a generated set is never downloaded.

    Raises a `ValueError` for an unknown name or bad data, a `FileNotFoundError` if no directory has the files and they
    may not be downloaded, and a `ConnectionError` if no host sends them.
    """
    task = Task.parse(env_name)
    directory = _find(task, data_dir, generated, mirrors, download)
    with _single_task_environment(task) as environment:

        def loaded(name: str, residence: Residence | Chosen) -> tuple[Dataset | HostDataset, dict[str, Any], Chosen]:
            path = stored_split(directory, task.dataset, name)
            split = read_split(path, environment, task, residence, sparse_rewards=sparse_rewards)
            dataset = split.dataset()
            about = _provenance(split, path, task, transitions=len(dataset), sparse=sparse_rewards)
            return dataset, about, split.residence

        # Both splits stay where the training split does.
        train, provenance, chosen = loaded(SPLITS[0], residence)
        validation, validation_provenance, _ = loaded(SPLITS[1], chosen)
    del validation_provenance["summary"]
    provenance["summary"]["validation"] = {name: validation_provenance[name] for name in ("episodes", "transitions")}
    return LoadedData(
        train=train,
        validation=validation,
        normalisation=Normalisation.identity(*train.sizes),
        provenance={**provenance, "validation": validation_provenance},
        residence=chosen,
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
    paths = [stored_split(directory, task.dataset, split) for split in SPLITS]
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


def _provenance(split: Split, path: pathlib.Path, task: Task, *, transitions: int, sparse: bool) -> dict[str, Any]:
    """The provenance of a split, with its summary."""
    rows = split.rows
    return {
        "env_name": task.env_name,
        "path": str(path),
        **split.origin,
        **({"sparse_rewards": True} if sparse else {}),
        "episodes": len(rows.lengths),
        "transitions": transitions,
        "summary": summarise(
            columns(rows.observations),
            columns(rows.actions),
            rows.rewards,
            split.ends,
            rows.terminated,
            transitions=transitions,
        ),
    }


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
