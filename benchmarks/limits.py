"""How close is an update to its minimum cost? Compares it with the device's limits and a textbook's update.

All times of a part are measured in turns in one process. FLOPs are XLA's count of one update at a fixed jump count.
"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("limits")

import contextlib
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from ceilings import interleaved, matmul_chain, seconds_of, stream
from runtime import machine
from updates import Chunks, Pinned, TextbookChunks, costs, made_up_dataset, make_agent, one_update, optimiser_bytes

from sorl.runs.metrics import read_timings
from sorl.system import command_line
from sorl.system.files import write_json
from sorl.train import __main__ as train


Part = Literal["floor", "baselines", "textbook", "chain", "seeds", "start", "run"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures each part, and prints each figure beside its aim."""

    parts: tuple[Part, ...] = ("floor", "baselines", "textbook", "chain", "seeds", "start", "run")
    """`floor`: 4 x 512 at a fixed number of jumps, against its matrix products and its optimiser's memory traffic at
    the device's measured speeds; `baselines`: the same for FQL and IQL; `textbook`: against the plain update, jumps
    drawn; `chain`: 2 x 256 against a bare chain of products with the same FLOPs; `seeds`: 8 vmapped seeds against one;
    `start`: seconds that a second start of a training run spends in compilation; `run`: `sorl.train` with logs,
    validation and checkpoints, against the bare chunk."""
    rounds: int = 7
    """Rounds of measurements taken in turns; the table shows medians."""
    seconds: float = 0.5
    """Approximate length of each measurement."""
    out: Path | None = None
    """JSON file for the figures; default: no file."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    found: float
    at_most: float | None
    """The aim; None if there is none."""
    detail: str = ""


def main(config: Config) -> list[Finding]:
    """Prints a table and **returns** its rows."""
    measures: dict[str, Callable[[Config], list[Finding]]] = {
        "floor": floor,
        "baselines": baselines,
        "textbook": against_textbook,
        "chain": against_chain,
        "seeds": grouped_seeds,
        "start": second_start,
        "run": whole_run,
    }
    here = machine()
    print(f"{here['device']} ({here['backend']}), jax {here['jax']}, {here['platform']}")
    print(f"{'what':<66} {'found':>8} {'aim <=':>8}")
    findings = []
    for part in config.parts:
        for finding in measures[part](config):
            aim = "" if finding.at_most is None else f"{finding.at_most:.3f}"
            print(f"{finding.what:<66} {finding.found:>8.3f} {aim:>8}  {finding.detail}", flush=True)
            findings.append(finding)
    if config.out is not None:
        rows = [dataclasses.asdict(finding) for finding in findings]
        write_json(config.out, {"machine": here, "command": sys.argv, "findings": rows})
    return findings


def floor(config: Config) -> list[Finding]:
    """SORL's update at 1 and 8 jumps: its FLOPs, and its time as a multiple of its minimum."""
    agents = {
        f"Sorl, {k} jumps": (Pinned(make_agent("Sorl", width=512, layers=4, backprop_steps=k)), most)
        for k, most in ((1, 10.5), (8, 22.5))
    }
    return against_floor(config, agents, 1.15)


def baselines(config: Config) -> list[Finding]:
    """The same for agents without jumps."""
    agents = {
        name: (make_agent(name, width=512, layers=4, backprop_steps=1), most)
        for name, most in (("Fql", 12.6), ("Iql", 7.5))
    }
    return against_floor(config, agents, 1.25)


def against_floor(config: Config, agents: dict[str, tuple[Any, float]], most_time: float) -> list[Finding]:
    """GFLOP and time / (products + optimiser) of each agent; the number beside an agent is its aim in GFLOP."""
    dataset = made_up_dataset(100_000, 28, 5)
    chunks = {name: Chunks(agent, dataset, updates=5) for name, (agent, _) in agents.items()}
    chain, chain_flops = matmul_chain(256, 512)
    triad, moved = stream()
    times = take_turns(config, {"chain": chain, "stream": triad, **chunks})
    findings = []
    for name, (agent, most_flops) in agents.items():
        flops, _ = costs(one_update(agent, dataset))
        products = flops / chain_flops * times["chain"]
        optimiser = optimiser_bytes(chunks[name].state.agent) / moved * times["stream"]
        seconds = times[name] / chunks[name].updates
        detail = f"{1000 * seconds:.1f} ms; products {1000 * products:.1f}, optimiser {1000 * optimiser:.1f}"
        rates = chain_flops / times["chain"] / 1e9, moved / times["stream"] / 1e9
        detail += f"; chain {rates[0]:.0f} GFLOP/s, stream {rates[1]:.1f} GB/s"
        findings.append(Finding(f"GFLOP of an update of 4 x 512, {name}", flops / 1e9, most_flops))
        findings.append(
            Finding(f"time of {name} / (products + optimiser)", seconds / (products + optimiser), most_time, detail)
        )
    return findings


def against_textbook(config: Config) -> list[Finding]:
    """Time of updates with drawn jumps, M^BTT 8, as a multiple of the textbook's; both draw their own batches."""
    dataset = made_up_dataset(100_000, 28, 5)
    findings = []
    for width, layers, aim in ((512, 4, 0.90), (256, 2, 0.75)):
        agent = make_agent("Sorl", width=width, layers=layers, backprop_steps=8)
        updates = 16 if width == 512 else 64
        chunks = {"ours": Chunks(agent, dataset), "textbook": TextbookChunks(agent, dataset)}
        times = take_turns(config, chunks, updates=updates)
        detail = ", ".join(f"{name} {1000 * seconds / updates:.2f} ms" for name, seconds in times.items())
        what = f"time of {layers} x {width}, jumps drawn up to 8 / the textbook update's"
        findings.append(Finding(what, times["ours"] / times["textbook"], aim, detail))
    return findings


def against_chain(config: Config) -> list[Finding]:
    """Time of a small network's update with drawn jumps, M^BTT 8, as a multiple of a chain of 256^3 products."""
    dataset = made_up_dataset(100_000, 28, 5)
    agents = [make_agent("Sorl", width=256, layers=2, backprop_steps=k) for k in (1, 2, 4, 8)]
    flops = np.mean([costs(one_update(Pinned(agent), dataset))[0] for agent in agents])
    chain, chain_flops = matmul_chain(256, 256)
    # A whole cycle of jump counts takes too long to time in turns, so many updates represent it.
    updates = 128
    times = take_turns(config, {"ours": Chunks(agents[-1], dataset)}, updates=updates)
    products = take_turns(config, {"chain": chain})["chain"] * flops / chain_flops
    detail = f"{1000 * times['ours'] / updates:.2f} ms, of which products {1000 * products:.2f}"
    what = "time of 2 x 256, jumps drawn up to 8 / a 256^3 chain's"
    return [Finding(what, float(times["ours"] / updates / products), 1.6, detail)]


def grouped_seeds(config: Config) -> list[Finding]:
    """Eight vmapped seeds against eight times one: the ratio is near 1 if no unused branch is computed."""
    dataset = made_up_dataset(100_000, 28, 5)
    findings = []
    for drawn in (False, True):
        agent = make_agent("Sorl", width=256, layers=2, backprop_steps=8)
        chosen = agent if drawn else Pinned(agent)
        one, eight = (costs(one_update(chosen, dataset, seeds=seeds))[0] for seeds in (1, 8))
        jumps = "drawn up to 8" if drawn else "fixed at 8"
        findings.append(Finding(f"FLOPs of 8 vmapped seeds / 8 x one, jumps {jumps}", eight / (8 * one), 1.02))
        chunks = {
            "one": Chunks(chosen, dataset, seed_mapping="vmap"),
            "eight": Chunks(chosen, dataset, seeds=8, seed_mapping="vmap"),
        }
        updates = 32
        times = take_turns(config, chunks, updates=updates)
        detail = f"one {1000 * times['one'] / updates:.2f} ms, eight {1000 * times['eight'] / updates:.2f} ms"
        what = f"time of 8 vmapped seeds / 8 x one, jumps {jumps}"
        findings.append(Finding(what, times["eight"] / (8 * times["one"]), None, detail))
    return findings


START = """
import sys, time
import jax
compiling, updated = [], []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: compiling.append(seconds) if name.endswith("backend_compile_duration") else None
)
from sorl.train import __main__ as train, loop
run_chunk = loop.run_chunk

def noted(*arguments, **settings):
    state = jax.block_until_ready(run_chunk(*arguments, **settings))
    updated.append(time.time())
    return state

loop.run_chunk = noted
code = train.main(sys.argv[2:])
print("RESULT", sum(compiling), len(compiling), updated[0] - float(sys.argv[1]))
sys.exit(code)
"""


def second_start(config: Config) -> list[Finding]:
    """Starts a training run on own logs twice, with one compilation cache; its first chunk is one update."""
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) / "logs.npz"
        write_logs(logs)
        found = [
            start(["--data", str(logs), "--updates", "20", "--run-dir", f"{folder}/run{number}"], folder)
            for number in (1, 2)
        ]
    (first, programs, cold), (second, again, warm) = found
    detail = f"first start: {first:.1f} s for {programs:.0f} programs; second: {again:.0f} loaded"
    return [
        Finding("seconds in backend compilation at a second start", second, 1.0, detail),
        Finding("seconds from a process's start to its first update, first start", cold, None),
        Finding("the same, second start", warm, None),
    ]


def whole_run(config: Config) -> list[Finding]:
    """Wall-clock time of an update of `sorl.train` as a multiple of the bare chunk's, 2 x 256, jumps drawn up to 8.

    Each round continues the run and then times the bare chunk. The time of a start is not counted: the clock runs from
    the first row of a round's log to its last, over nine rows and a checkpoint. The run logs and saves more often than
    the quickstart, which writes a row every 1,000 updates and a checkpoint every 10,000.
    """
    updates, rows = 2500, 10
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        logs, directory = Path(folder) / "logs.npz", Path(folder) / "run"
        write_logs(logs)
        begin = ["--data", str(logs), "--agent.hidden-sizes", "256", "256", "--agent.critic-hidden-sizes", "256", "256"]
        begin += ["--log-interval", str(updates // rows), "--checkpoint-interval", str(updates // 2)]
        settings = train.parse([*begin, "--run-dir", str(directory)])[0]
        bare = Chunks(settings.agent, train.load_data(settings).train, batch_size=settings.batch_size, updates=100)
        for number in range(1, config.rounds + 1):
            again = ["--resume"] if number > 1 else begin
            with contextlib.redirect_stdout(io.StringIO()):
                code = train.main([*again, "--run-dir", str(directory), "--updates", str(number * updates), "--quiet"])
            if code:
                raise RuntimeError(f"The training run of this benchmark ended with exit code {code}.")
            last = [row for row in read_timings(directory) if "elapsed_seconds" in row][-rows:]
            seconds = (last[-1]["elapsed_seconds"] - last[0]["elapsed_seconds"]) / (last[-1]["step"] - last[0]["step"])
            ratios.append(seconds / (seconds_of(bare, at_least=config.seconds) / bare.updates))
    detail = f"rounds {', '.join(f'{ratio:.3f}' for ratio in ratios)}"
    return [Finding("time of an update of sorl.train / the bare chunk's, 2 x 256", median(ratios), 1 / 0.97, detail)]


def start(arguments: Sequence[str], cache: str) -> list[float]:
    """Seconds in compilation, number of programs, and seconds to the first update, of one training process."""
    command = [sys.executable, "-c", START, str(time.time()), *arguments]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    if finished.returncode:
        raise RuntimeError(f"The training run of this benchmark failed:\n{finished.stderr}")
    (line,) = (line for line in finished.stdout.splitlines() if line.startswith("RESULT"))
    return [float(word) for word in line.split()[1:]]


def write_logs(path: Path) -> None:
    """Writes random logs in the format of a user's own logs."""
    generator = np.random.default_rng(0)
    ends = np.zeros(2000, bool)
    ends[99::100] = True
    np.savez(
        path,
        observations=generator.normal(size=(2000, 28)).astype(np.float32),
        actions=generator.uniform(-1, 1, (2000, 5)).astype(np.float32),
        rewards=-np.ones(2000, np.float32),
        terminals=np.zeros(2000, bool),
        timeouts=ends,
    )


def take_turns(config: Config, calls: dict[str, Any], *, updates: int | None = None) -> dict[str, float]:
    """Median seconds of each call; if `updates` is given, all calls are chunks, and it is their number of updates."""
    if updates is not None:
        for chunk in calls.values():
            chunk.updates = updates
    times = interleaved(calls, rounds=config.rounds, at_least=config.seconds)
    return {name: median(seconds) for name, seconds in times.items()}


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/limits.py"))
