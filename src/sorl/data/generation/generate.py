"""Generates data sets in OGBench's file format, in parallel processes, and continues after an interrupted run."""

import dataclasses
import hashlib
import json
import pathlib
import platform
import shutil
import sys
from contextlib import closing, suppress
from typing import Any

from tqdm import tqdm

from sorl.data.generation import shards
from sorl.data.generation.assembling import Form, assemble, episodes_of, is_there, map_files
from sorl.data.generation.pool import WORKER_TIMEOUT, collect
from sorl.data.generation.recipes import GeneratedSet
from sorl.data.generation.shards import shard_path
from sorl.environments.simulators import require_simulators
from sorl.system.cores import available_cores
from sorl.system.files import expanded, make_directory, named_errors
from sorl.system.locks import exclusive
from sorl.system.packages import installed_version


REMEDY = "give a directory that you may write with --out, or set XDG_DATA_HOME to one"


def generate(
    wanted: GeneratedSet,
    *,
    directory: pathlib.Path | None = None,
    workers: int | None = None,
    worker_timeout: float = WORKER_TIMEOUT,
    progress: bool = True,
    form: Form = "npz",
) -> pathlib.Path:
    """Generates a data set with OGBench's own environments and oracles, unless it exists already.

    **Arguments:** `wanted`, the set; `directory`, where its files go (None: the set's own directory below
    `generated_root()`); `workers`, the number of parallel processes (None: one per core), which affects only the speed;
    `worker_timeout`, the seconds allowed for one episode, after which a worker counts as hung; `progress`, whether to
    show a bar with steps per second and the time left; `form`, npz files or data directories (`mapped`), which are made
    from the npz files if those exist.

    **Returns:** the directory, which holds `{dataset}.npz`, `{dataset}-val.npz` and a record beside each; or the data
    directories `{dataset}` and `{dataset}-val`.

    Raises a `ValueError` if `directory` holds a different set of that name, an `ImportError` without OGBench, an
    `OSError`, one sentence, if the directory cannot be written, and a `GenerationWorkerError` (a `RuntimeError`) if a
    worker fails, dies or hangs. Finished episodes are kept in every case, and the next call continues after them.
    """
    workers = available_cores() if workers is None else workers
    if workers < 1:
        raise ValueError(f"{workers} workers generate nothing; give at least 1.")
    if not worker_timeout > 0:
        raise ValueError(f"The time-out of a worker is {worker_timeout} s; give a number above 0.")
    directory = wanted.directory if directory is None else expanded(directory, "give its full name")
    settings = _settings(wanted)
    folder, lock = _shards_directory(wanted, directory), directory / ".sorl.lock"
    if is_there(wanted, directory, settings, form):  # before the lock, so that a read-only directory works
        if folder.exists():  # a process was killed before it had removed them, or another one still uses them
            with suppress(OSError), exclusive(lock, "Another process generates here."):
                shutil.rmtree(folder, ignore_errors=True)
        return directory
    require_simulators()
    with exclusive(lock, remedy=REMEDY):
        if not is_there(wanted, directory, settings, form):  # another process may have generated it meanwhile
            if form == "mapped" and is_there(wanted, directory, settings, "npz"):
                map_files(wanted, directory)
                return directory
            if folder.is_symlink():
                raise OSError(f"{folder} is a link in the place of a directory of finished episodes; remove it.")
            make_directory(folder, REMEDY)
            _collect(wanted, folder, workers, worker_timeout, progress)
            assemble(wanted, directory, folder, settings, form)
            shutil.rmtree(folder, ignore_errors=True)  # a killed run's worker may still be adding its last episode
    return directory


def _settings(wanted: GeneratedSet) -> dict[str, Any]:
    """The settings that the set's records store."""
    return {
        "source": "generated",
        "seed": wanted.seed,
        "train_episodes": wanted.episodes,
        "recipe": dataclasses.asdict(wanted.recipe),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    packages = ("sorl", "ogbench", "mujoco", "gymnasium", "numpy")
    installed = {name: installed_version(name) or "not installed" for name in packages}
    return {"python": platform.python_version(), **installed}


def _shards_directory(wanted: GeneratedSet, directory: pathlib.Path) -> pathlib.Path:
    """The directory of finished episodes; its name is a hash of all settings, so that sets are never mixed."""
    content = json.dumps([dataclasses.asdict(wanted.recipe), wanted.seed, _versions()])
    return directory / f".{wanted.dataset}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.parts"


def _collect(wanted: GeneratedSet, folder: pathlib.Path, workers: int, worker_timeout: float, progress: bool) -> None:
    """Collects the episodes that have no undamaged shard yet."""
    missing = [episode for episode in episodes_of(wanted) if not _is_collected(shard_path(folder, episode))]
    job = {"recipe": dataclasses.asdict(wanted.recipe), "seed": wanted.seed, "folder": str(folder)}
    bar = tqdm(
        total=len(missing) * wanted.recipe.steps,
        desc=f"generating {wanted.dataset}",
        unit="step",
        unit_scale=True,
        disable=not progress,
    )
    with bar, closing(collect(job, missing, workers, worker_timeout)) as finished:
        for rows in finished:
            bar.update(rows)


def _is_collected(path: pathlib.Path) -> bool:
    """Whether an episode's shard exists; removes a damaged one, with a line on standard error."""
    if not path.is_symlink() and not path.exists():
        return False
    damage = "it is a link" if path.is_symlink() else shards.damage(path)
    if damage is None:
        return True
    print(f"{path} is damaged ({damage}); its episode is collected again.", file=sys.stderr)
    with named_errors(path, "removed", "remove it by hand"):
        path.unlink()
    return False
