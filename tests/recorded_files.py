"""Small recorded data in the formats that sorl reads, written with those formats' own libraries."""

from pathlib import Path
from typing import Any

import numpy as np


def episodes(
    lengths=(4, 3, 5), observation=3, action=2, seed=0, dtype: Any = np.float32
) -> list[dict[str, np.ndarray]]:
    """Made-up episodes, whose `observations` have one row more than steps."""
    random = np.random.default_rng(seed)
    return [
        {
            "observations": random.normal(size=(steps + 1, observation)).astype(dtype),
            "actions": random.uniform(-1, 1, (steps, action)).astype(dtype),
            "rewards": random.normal(size=steps).astype(dtype),
        }
        for steps in lengths
    ]


def write_d4rl(
    path: Path, found: list[dict[str, np.ndarray]], ends: list[str], *, successors=True, changes: Any = None
) -> Path:
    """A file in D4RL's layout; each of `ends` is "terminal", "timeout" or "open" (only the last)."""
    import h5py

    arrays: dict[str, Any] = {
        "observations": np.concatenate([one["observations"][:-1] for one in found]),
        "next_observations": np.concatenate([one["observations"][1:] for one in found]) if successors else None,
        "actions": np.concatenate([one["actions"] for one in found]),
        "rewards": np.concatenate([one["rewards"] for one in found]),
    }
    rows = len(arrays["rewards"])
    last = np.cumsum([len(one["rewards"]) for one in found]) - 1
    for key, word in (("terminals", "terminal"), ("timeouts", "timeout")):
        arrays[key] = np.zeros(rows, np.bool_)
        arrays[key][[row for row, end in zip(last, ends, strict=True) if end == word]] = True
    with h5py.File(path, "w") as file:
        for key, array in {**arrays, **(changes or {})}.items():
            if array is not None:
                file[key] = array
    return path


def write_robomimic(
    path: Path, found: list[dict[str, np.ndarray]], dones: list[list[int]], changes: Any = None
) -> Path:
    """A file in robomimic's layout, whose observations are the keys `object` (the first column) and `eef_pos`."""
    import h5py

    with h5py.File(path, "w") as file:
        for number, (one, done) in enumerate(zip(found, dones, strict=True)):
            demo = file.create_group(f"data/demo_{number}")
            for key, states in (("obs", one["observations"][:-1]), ("next_obs", one["observations"][1:])):
                demo[f"{key}/object"], demo[f"{key}/eef_pos"] = states[:, :1], states[:, 1:]
                demo[f"{key}/front_image"] = np.zeros((len(states), 4, 4, 3), np.uint8)
            demo["actions"], demo["rewards"], demo["dones"] = one["actions"], one["rewards"], np.array(done)
            demo.attrs["num_samples"] = len(done)
        file["data"].attrs["env_args"] = '{"env_name": "Lift", "env_kwargs": {"control_freq": 20}}'
        for key, array in (changes or {}).items():
            if array is not None:
                if key in file:
                    del file[key]
                file[key] = array
    return path


def write_table(path: Path, found: list[dict[str, np.ndarray]]) -> Path:
    """A CSV or parquet file with the columns x, y, z, u, v, r, done, run and t; the first two runs end with done."""
    steps = [len(one["rewards"]) for one in found]
    states = np.concatenate([one["observations"][:-1] for one in found])
    actions = np.concatenate([one["actions"] for one in found])
    done = np.zeros(len(states), np.int64)
    done[np.cumsum(steps)[:2] - 1] = 1
    columns = {
        **{name: states[:, index] for index, name in enumerate("xyz")},
        **{name: actions[:, index] for index, name in enumerate("uv")},
        "r": np.concatenate([one["rewards"] for one in found]),
        "done": done,
        "run": np.repeat(np.arange(len(found)) + 7, steps),
        "t": np.concatenate([np.arange(count) / 10 for count in steps]),
    }
    if path.suffix == ".csv":
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        path.write_text("\n".join([",".join(columns), *(",".join(map(repr, row)) for row in rows)]) + "\n")
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(columns), path)
    path.with_suffix(".toml").write_text(
        'observations = ["x", "y", "z"]\nactions = ["u", "v"]\nrewards = "r"\nterminals = "done"\nepisode = "run"\n'
        'time = "t"\nframe_rate = 10\n'
    )
    return path
