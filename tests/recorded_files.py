"""Small recorded data in the formats that sorl reads, written with those formats' own libraries."""

import json
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


def write_lerobot(
    directory: Path,
    found: list[dict[str, np.ndarray]],
    version: str,
    columns: dict[str, list[Any]] | None = None,
    changes: Any = None,
) -> Path:
    """A directory in LeRobot's layout of a version, with a video that is only named.

    `columns` are further features, such as `next.reward`, a list for each episode; `changes` those of `info.json`.
    """
    steps = [len(one["rewards"]) for one in found]
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["pan", "lift", "grip"]},
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["left", "right"]}},
        "observation.images.front": {"dtype": "video", "shape": [4, 4, 3], "names": ["height", "width", "channel"]},
    }
    for name, lists in (columns or {}).items():
        features[name] = {"dtype": np.asarray(lists[0]).dtype.name, "shape": [1], "names": None}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(found),
        "total_frames": sum(steps),
        "total_tasks": 1,
        "chunks_size": 1000,
        "fps": 30,
        "splits": {"train": f"0:{len(found)}"},
        "features": features,
        **(changes or {}),
    }
    write = _lerobot_v3 if version.startswith("v3") else _lerobot_v2
    (directory / "meta").mkdir(parents=True)
    (directory / "meta" / "info.json").write_text(json.dumps(info))
    write(directory, [_lerobot_table(number, one, steps, columns or {}) for number, one in enumerate(found)])
    return directory


def _lerobot_table(number: int, one: dict[str, np.ndarray], steps: list[int], columns: dict[str, list[Any]]) -> Any:
    import pyarrow as pa

    count, before = steps[number], sum(steps[:number])
    return pa.table(
        {
            "observation.state": pa.FixedSizeListArray.from_arrays(one["observations"][:-1].reshape(-1), 3),
            "action": pa.array(list(one["actions"]), pa.list_(pa.float32())),
            **{name: pa.array(np.asarray(lists[number])) for name, lists in columns.items()},
            "timestamp": np.arange(count, dtype=np.float32) / np.float32(30),
            "frame_index": np.arange(count),
            "episode_index": np.full(count, number),
            "index": np.arange(before, before + count),
            "task_index": np.zeros(count, np.int64),
        }
    )


def _lerobot_v2(directory: Path, tables: list[Any]) -> None:
    from pyarrow import parquet

    (directory / "data" / "chunk-000").mkdir(parents=True)
    lines = []
    for number, table in enumerate(tables):
        parquet.write_table(table, directory / "data" / "chunk-000" / f"episode_{number:06d}.parquet")
        lines.append(json.dumps({"episode_index": number, "tasks": ["pick"], "length": table.num_rows}))
    (directory / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    (directory / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "pick"}\n')


def _lerobot_v3(directory: Path, tables: list[Any]) -> None:
    """Two files of steps, the second with all episodes but the first."""
    import pyarrow as pa
    from pyarrow import parquet

    lengths = [table.num_rows for table in tables]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for place in ("data/chunk-000", "meta/episodes/chunk-000"):
        (directory / place).mkdir(parents=True)
    parquet.write_table(tables[0], directory / "data/chunk-000/file-000.parquet")
    parquet.write_table(pa.concat_tables(tables[1:]), directory / "data/chunk-000/file-001.parquet", row_group_size=4)
    episodes = {
        "episode_index": np.arange(len(tables)),
        "tasks": [["pick"]] * len(tables),
        "length": lengths,
        "data/chunk_index": [0] * len(tables),
        "data/file_index": [0] + [1] * (len(tables) - 1),
        "dataset_from_index": starts[:-1],
        "dataset_to_index": starts[1:],
        "meta/episodes/chunk_index": [0] * len(tables),
        "meta/episodes/file_index": [0] * len(tables),
    }
    parquet.write_table(pa.table(episodes), directory / "meta/episodes/chunk-000/file-000.parquet")
    parquet.write_table(pa.table({"task_index": [0], "task": ["pick"]}), directory / "meta/tasks.parquet")
