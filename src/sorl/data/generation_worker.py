"""The program of one generation worker: reads which episodes to collect from stdin, reports on stdout.

Both streams carry one JSON value a line: first the job, then the number of one episode at a time, answered by the
number of rows collected. It ends when stdin does, so no worker outlives the process that started it.
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np

from sorl.data.episodes import collect_episode, make_recipe_environment
from sorl.data.recipes import Recipe
from sorl.files import whole_file


def shard_path(folder: pathlib.Path, episode: tuple[int, int]) -> pathlib.Path:
    """The file that holds one finished episode, `(split, number)`."""
    return folder / "split-{}-episode-{:06d}.npz".format(*episode)


def write_shard(environment: Any, recipe: Recipe, seed: int, episode: tuple[int, int], folder: pathlib.Path) -> int:
    """Collects one episode into its shard, whole or not at all, and returns its number of rows."""
    rows = collect_episode(environment, recipe, (seed, *episode))
    path = shard_path(folder, episode)
    with whole_file(path, "wb") as file:
        np.savez(file, allow_pickle=False, **rows)
    return len(rows["terminals"])


def main() -> None:
    """Runs until stdin ends."""
    replies, sys.stdout = sys.stdout, sys.stderr
    job = json.loads(sys.stdin.readline())
    recipe = Recipe(**job["recipe"])
    environment = make_recipe_environment(recipe)
    for line in sys.stdin:
        rows = write_shard(environment, recipe, job["seed"], tuple(json.loads(line)), pathlib.Path(job["folder"]))
        print(json.dumps(rows), file=replies, flush=True)


if __name__ == "__main__":
    main()
