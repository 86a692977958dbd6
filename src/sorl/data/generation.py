"""Generates data sets in OGBench's file format, one process a core, and picks up where a killed run stopped."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import queue
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from tqdm import tqdm

from sorl.data import records
from sorl.data.episodes import DTYPES
from sorl.data.generation_worker import shard_path
from sorl.data.recipes import GeneratedSet
from sorl.locks import exclusive
from sorl.worker_process import worker_command


SPLITS = ("train", "val")
"""An episode is numbered by its split's place here and its place in the split."""


def generate(
    wanted: GeneratedSet,
    *,
    directory: pathlib.Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> pathlib.Path:
    """Makes a data set with OGBench's own environments and oracles, unless it is there already.

    **Arguments:** `wanted`, the set; `directory`, where its files go (None: the set's own directory below
    `generated_root()`); `workers`, processes at a time (None: one a core), which changes nothing but the speed;
    `progress`, whether to show a bar with steps per second and the time left.

    **Returns:** the directory, which holds `{dataset}.npz`, `{dataset}-val.npz` and a record beside each.

    Raises a `ValueError` if `directory` holds a different set of that name, and a `RuntimeError` if a worker dies.
    Finished episodes outlive a kill: the next call goes on from them.
    """
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise ValueError(f"{workers} workers generate nothing; give at least 1.")
    directory = wanted.directory if directory is None else directory.expanduser()
    settings = _settings(wanted)
    with exclusive(directory / ".sorl.lock"):
        if not _is_there(wanted, directory, settings):
            shards = _shards_directory(wanted, directory)
            _collect(wanted, shards, workers, progress)
            _assemble(wanted, directory, shards, settings)
            shutil.rmtree(shards, ignore_errors=True)  # a killed run's worker may still be adding its last episode
    return directory


def split_path(directory: pathlib.Path, dataset: str, split: str) -> pathlib.Path:
    """OGBench's file name of a split, `train` or `val`."""
    return directory / (f"{dataset}.npz" if split == "train" else f"{dataset}-{split}.npz")


def _settings(wanted: GeneratedSet) -> dict[str, Any]:
    """What the records say about how the set was made."""
    return {
        "source": "generated",
        "seed": wanted.seed,
        "train_episodes": wanted.episodes,
        "recipe": dataclasses.asdict(wanted.recipe),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    packages = ("sorl", "ogbench", "mujoco", "gymnasium", "numpy")
    installed = {name: _version(name) for name in packages}
    return {"python": platform.python_version(), **installed}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_there(wanted: GeneratedSet, directory: pathlib.Path, settings: dict[str, Any]) -> bool:
    paths = [split_path(directory, wanted.dataset, split) for split in SPLITS]
    if not all(path.exists() for path in paths):
        return False
    record = records.verified(paths[0]) or {}
    if any(record.get(key) != settings[key] for key in ("source", "seed", "train_episodes", "recipe")):
        raise ValueError(
            f"{paths[0]} exists already and was not made by the settings asked for ({wanted}); "
            "give another directory or delete it."
        )
    return True


def _episodes(wanted: GeneratedSet) -> list[tuple[int, int]]:
    counts = (wanted.episodes, wanted.validation_episodes)
    return [(split, number) for split in range(len(SPLITS)) for number in range(counts[split])]


def _shards_directory(wanted: GeneratedSet, directory: pathlib.Path) -> pathlib.Path:
    """Where finished episodes wait; named by all that decides their content, so that no others can slip in."""
    content = json.dumps([dataclasses.asdict(wanted.recipe), wanted.seed, _versions()])
    shards = directory / f".{wanted.dataset}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.parts"
    shards.mkdir(exist_ok=True)
    return shards


def _collect(wanted: GeneratedSet, shards: pathlib.Path, workers: int, progress: bool) -> None:
    """Collects the episodes that have no shard yet."""
    missing = [episode for episode in _episodes(wanted) if not shard_path(shards, episode).exists()]
    job = {"recipe": dataclasses.asdict(wanted.recipe), "seed": wanted.seed, "folder": str(shards)}
    bar = tqdm(
        total=len(missing) * wanted.recipe.steps,
        desc=f"generating {wanted.dataset}",
        unit="step",
        unit_scale=True,
        disable=not progress,
    )
    with bar, _workers(job, min(workers, len(missing))) as idle, ThreadPoolExecutor(max(1, idle.qsize())) as pool:

        def collect(episode: tuple[int, int]) -> int:
            worker = idle.get()
            try:
                return _ask(worker, episode)
            finally:
                idle.put(worker)

        try:
            for future in as_completed([pool.submit(collect, episode) for episode in missing]):
                bar.update(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the episodes under way are still finished and kept
            raise


@contextmanager
def _workers(job: dict[str, Any], count: int) -> Iterator[queue.SimpleQueue[subprocess.Popen[str]]]:
    """Starts worker processes, and ends them by closing their input.

    They are programs of their own rather than `multiprocessing`'s children, because those import the main program
    again: it would cost every worker an import of jax, and a script without a `__main__` guard its sanity. Each leads a
    process group of its own, so that Ctrl-C in the terminal reaches the main program alone.
    """
    command, environment = worker_command("from sorl.data.generation_worker import main; main()")
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, process_group=0)
        for _ in range(count)
    ]
    idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
    try:
        for process in processes:
            _send(process, job)
            idle.put(process)
        yield idle
    finally:
        for process in processes:
            process.communicate()


def _ask(worker: subprocess.Popen[str], episode: tuple[int, int]) -> int:
    """Has a worker collect one episode; its number of rows."""
    assert worker.stdout is not None
    _send(worker, episode)
    reply = worker.stdout.readline()
    if not reply:
        raise RuntimeError(
            f"A generation worker ended with exit code {worker.wait()}, its own message stands above; "
            "run the same command again to go on from the finished episodes."
        )
    return json.loads(reply)


def _send(worker: subprocess.Popen[str], message: Any) -> None:
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # a dead worker is told apart by its missing reply
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()


def _assemble(wanted: GeneratedSet, directory: pathlib.Path, shards: pathlib.Path, settings: dict[str, Any]) -> None:
    """Joins the episodes of each split into its file; the training file comes last and completes the set."""
    for place, split in reversed(list(enumerate(SPLITS))):
        parts = [shard_path(shards, episode) for episode in _episodes(wanted) if episode[0] == place]
        rows = _concatenate(parts)
        temporary = shards / f"{split}.tmp"
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **rows)
        transitions = int(np.sum(~rows["terminals"]))
        details = {**settings, "split": split, "episodes": len(parts), "transitions": transitions}
        records.publish(temporary, split_path(directory, wanted.dataset, split), details)


def _concatenate(parts: list[pathlib.Path]) -> dict[str, np.ndarray]:
    episodes = []
    for part in parts:
        with np.load(part, allow_pickle=False) as file:
            episodes.append({key: file[key] for key in DTYPES if key in file})
    return {key: np.concatenate([episode[key] for episode in episodes]) for key in episodes[0]}
