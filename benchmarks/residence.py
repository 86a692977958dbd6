"""What does it cost to train on data that stay on the host or on disk, in speed, memory and time to start?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("residence")

import dataclasses
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from runtime import machine
from updates import make_agent

from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig
from sorl.data.mapped.manifest import is_data_directory, read_manifest
from sorl.data.mapped.writer import MappedWriter
from sorl.system import command_line
from sorl.system.files import write_csv, write_json
from sorl.train.trainer import Trainer, initial


PLACES = ("device", "host", "disk")


@dataclasses.dataclass(frozen=True)
class Config:
    """Times chunks of the three residences in turns, and measures peak memory and start in a process for each.

    The set is made up, and written with the writer of data directories unless it exists.
    """

    folder: Path = Path("big")
    """Directory of the made-up sets, NAME-TRANSITIONS; they stay there."""
    transitions: tuple[int, ...] = (1_000_000, 30_000_000)
    """Sizes of the sets; speed is measured on the first, memory and start on all."""
    observation_size: int = 6
    """Length of an observation."""
    action_size: int = 2
    """Length of an action."""
    episode: int = 1000
    """Steps of an episode."""
    networks: tuple[str, ...] = ("2x256", "4x512")
    """Hidden layers x units of the networks that are timed; none: no speed is measured."""
    rounds: int = 7
    """Number of timed chunks of each residence."""
    chunk_seconds: float = 2.0
    """Approximate length of each chunk, in seconds."""
    memory_updates: int = 2000
    """Updates of the processes whose memory is measured, with small networks; 0: it is not measured."""
    most_in_memory: int = 100_000_000
    """Sets of more transitions than this are measured on disk alone."""
    out: Path | None = None
    """JSON file of all figures; a CSV file of the rows is written beside it."""

    def __post_init__(self):
        if self.episode < 1 or not self.transitions or any(n < 1 or n % self.episode for n in self.transitions):
            raise ValueError(
                f"transitions are {self.transitions} and episode {self.episode}; give one or more multiples of it."
            )
        if unknown := [network for network in self.networks if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", network)]:
            raise ValueError(f"networks has {unknown}; give layers x units, such as 2x256.")


def main(config: Config) -> dict[str, Any]:
    """Measures, prints and writes all figures, and **returns** them."""
    sets = [made_up(config, transitions) for transitions in config.transitions]
    rows = [row for network in config.networks for row in speed(config, sets[0], network)]
    for row in rows:
        print(
            f"{row['network']:>7} {row['residence']:>7}: {row['updates_per_second']:.1f} updates/s, "
            f"{row['ratio']:.3f} of the device's"
        )
    if config.memory_updates:
        for path in sets:
            rows += memory(config, path)
    found = {"machine": machine(), "settings": json.loads(json.dumps(dataclasses.asdict(config), default=str))}
    found["rows"] = rows
    if config.out:
        write_json(config.out, found)
        write_csv(config.out.with_suffix(".csv"), rows, list(dict.fromkeys(name for row in rows for name in row)))
    return found


def made_up(config: Config, transitions: int) -> Path:
    """Writes a made-up set, unless it exists; **returns** its directory.

    Raises a `ValueError` if one of other sizes exists.
    """
    path = config.folder.absolute() / f"made-up-{transitions}"
    if is_data_directory(path):
        found = read_manifest(path)
        sizes = [found.arrays[name].shape[1] for name in ("observations", "actions")]
        if [*sizes, found.rows // found.episodes] != [config.observation_size, config.action_size, config.episode]:
            raise ValueError(f"{path} has other sizes than the options; remove it, or give another --folder.")
        return path
    generator, start = np.random.default_rng(0), time.perf_counter()
    with MappedWriter(path) as writer:
        for _ in range(transitions // config.episode):
            observations = generator.standard_normal((config.episode + 1, config.observation_size), np.float32)
            writer.append(
                {
                    "observations": observations[:-1],
                    "actions": generator.random((config.episode, config.action_size), np.float32),
                    "rewards": generator.random(config.episode, np.float32),
                    "terminations": np.zeros(config.episode, np.bool_),
                },
                observations[-1],
            )
    seconds, size = time.perf_counter() - start, read_manifest(path).size
    print(f"wrote {path}: {size / 2**30:.2f} GiB in {seconds:.0f} s ({size / seconds / 1e6:.0f} MB/s)", flush=True)
    return path


def settings(path: Path, place: Any, hidden: tuple[int, ...]) -> TrainConfig:
    """The options of a run on a set."""
    return TrainConfig(
        env=None,
        agent=make_agent("Sorl", width=hidden[0], layers=len(hidden), backprop_steps=8),
        data=DataConfig(path=path, residence=place),
        evaluation=EvaluationConfig(interval=0),
    )


def speed(config: Config, path: Path, network: str) -> list[dict[str, Any]]:
    """Updates per second of each residence, in chunks that take turns, and the median ratio to the device's."""
    layers, width = map(int, network.split("x"))
    runs = {place: Run(settings(path, place, (width,) * layers)) for place in PLACES}
    for run in runs.values():
        run(1)  # compiles
    updates = max(1, int(config.chunk_seconds / min(runs["device"](20) for _ in range(2)) * 20))
    seconds = {place: [] for place in PLACES}
    for _ in range(config.rounds):
        for place, run in runs.items():
            seconds[place].append(run(updates))
    return [
        {
            "network": network,
            "residence": place,
            "transitions": config.transitions[0],
            "updates_per_second": updates / median(seconds[place]),
            "ratio": median(np.divide(seconds["device"], seconds[place]).tolist()),
        }
        for place in PLACES
    ]


class Run:
    """A training, of which a call makes some updates and returns the seconds that they took."""

    def __init__(self, config: TrainConfig):
        data = config.source.load().train
        self._trainer, self._state = Trainer(config, data), initial(config, data)

    def __call__(self, updates: int) -> float:
        start = time.perf_counter()
        self._state = self._trainer.train(self._state, updates)
        return time.perf_counter() - start


MEMORY = """
import dataclasses, hashlib, json, sys, time
start = time.perf_counter()
import jax
import numpy as np
from pathlib import Path
from residence import settings
from sorl.agents import Iql
from sorl.train.trainer import Trainer, initial
path, place, updates = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
agent = Iql(hidden_sizes=(16, 16), critic_hidden_sizes=(16, 16))
config = dataclasses.replace(settings(path, place, (8,)), agent=agent, updates=updates)
began = time.perf_counter()
data = config.source.load()
loaded = time.perf_counter()
trainer = Trainer(config, data.train)
state = trainer.train(initial(config, data.train), 1)
first = time.perf_counter()
state = trainer.train(state, updates - 1)
digest = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.agent))).hexdigest()
(line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
peak = int(line.split()[1])
found = {"peak_mib": peak / 1024, "load_seconds": loaded - began, "first_update_seconds": first - began}
print("RESULT", json.dumps(found | {"sha256": digest}))
"""


def memory(config: Config, path: Path) -> list[dict[str, Any]]:
    """Peak memory, time to start and a digest of the parameters, of a process for each residence.

    They are compared with those of an empty run: the same agent on a set of one episode.
    """
    empty = made_up(config, config.episode)
    rows, places = [], PLACES if read_manifest(path).rows <= config.most_in_memory else ("disk",)
    for place, target in (("empty", empty), *((place, path) for place in places)):
        command = [sys.executable, "-c", MEMORY, str(target), place.replace("empty", "device")]
        done = subprocess.run(
            [*command, str(config.memory_updates)], capture_output=True, text=True, cwd=Path(__file__).parent
        )
        if done.returncode:
            raise RuntimeError(f"The process of this benchmark failed:\n{done.stderr}")
        (line,) = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
        row = {"transitions": read_manifest(target).rows, "residence": place}
        row |= json.loads(line.removeprefix("RESULT "))
        row["above_empty_mib"] = row["peak_mib"] - (rows[0]["peak_mib"] if rows else row["peak_mib"])
        rows.append(row)
        print(
            f"{row['transitions']:>11,} {place:>7}: {row['above_empty_mib']:.0f} MiB above an empty run, loaded in "
            f"{row['load_seconds']:.1f} s, first update after {row['first_update_seconds']:.1f} s, "
            f"parameters {row['sha256'][:12]}",
            flush=True,
        )
    return rows


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/residence.py"))
