"""How long do updates and decisions take, by jumps, seeds and candidates, and how close are they to the device's limit?

Updates are timed inside the compiled chunk that training runs, on random data of a given size. The same run measures
the device's limits at the same shapes, so that a time can be given as a multiple of its minimum.
"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("runtime")

import dataclasses
import itertools
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import jax
import numpy as np
from ceilings import matmul_chain, seconds_of, stream
from pictures import logarithmic, pyplot_without_screen
from updates import Chunks, Pinned, costs, made_up_dataset, make_agent, one_update, optimiser_bytes

from sorl.agents import Budget
from sorl.data.normalisation import Normalisation
from sorl.policy import decide
from sorl.system import command_line
from sorl.system.files import read_json, write_json
from sorl.train import loop


@dataclasses.dataclass(frozen=True)
class Config:
    """Times updates against M^BTT and seeds, then decisions against M^inf and candidates, on this device."""

    agent: str = "Sorl"
    """Class name of the agent; an agent without jumps ignores M^BTT."""
    backprop_steps: tuple[int, ...] = (1, 2, 4, 8)
    """M^BTT: largest jump counts to time."""
    seeds: tuple[int, ...] = (1, 8)
    """Numbers of seeds to train together, with `map` on a CPU and `vmap` elsewhere."""
    width: int = 512
    """Units of each hidden layer."""
    layers: int = 4
    """Hidden layers of policy and critics."""
    batch_size: int = 256
    """Transitions of one update."""
    matmul_precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """Precision of the factors in matrix products, as in `sorl.train`; a CPU supports only float32."""
    observation_size: int = 28
    """Length of an observation (28: cube-single)."""
    action_size: int = 5
    """Length of an action (5: cube-single)."""
    rows: int = 100_000
    """Rows of the data set on the device."""
    chunk_seconds: float = 1.0
    """Approximate length of each timed chunk, in seconds."""
    chunks: int = 10
    """Number of timed chunks; the table shows their median, 10th and 90th percentile."""
    inference_steps: tuple[int, ...] = (1, 2, 4, 8)
    """M^inf: jumps of a decision to time."""
    candidates: tuple[int, ...] = (1, 8)
    """N: candidates of a decision to time."""
    inference_batches: tuple[int, ...] = (1, 64, 1024)
    """Batch sizes of the decisions to time; empty: no decision is timed."""
    out: Path | None = None
    """JSON file for all figures; with matplotlib, a PNG picture of the same name is drawn beside it."""
    trace: Path | None = None
    """Directory for profiler traces (for Perfetto or XProf) of one more chunk for each row of updates."""
    compare: tuple[Path, Path] | None = None
    """Time nothing, and print the ratios of two such JSON files, the second to the first."""


def main(config: Config) -> dict[str, Any]:
    """Measures, prints and writes all figures (or compares two files), and **returns** them."""
    if config.compare is not None:
        before, after = (read_json(path) for path in config.compare)
        return compare(before, after)
    with jax.default_matmul_precision(config.matmul_precision):
        return measure(config)


def measure(config: Config) -> dict[str, Any]:
    """Times updates and decisions, prints and writes the tables, and **returns** them."""
    dataset = made_up_dataset(config.rows, config.observation_size, config.action_size)
    ceilings = measure_ceilings(config)
    print_machine(config, ceilings)
    updates = [
        measure_update(config, dataset, most, seeds, ceilings)
        for seeds in config.seeds
        for most in config.backprop_steps
    ]
    decisions = [
        measure_decision(config, *point)
        for point in itertools.product(config.inference_batches, config.candidates, config.inference_steps)
    ]
    print_updates(updates)
    print_decisions(decisions)
    settings = dataclasses.asdict(config) | {"out": str(config.out), "trace": str(config.trace)}
    found = {"machine": machine(), "command": sys.argv, "settings": settings, "ceilings": ceilings}
    found |= {"updates": updates, "decisions": decisions}
    if config.out is not None:
        write_json(config.out, found)
        draw(found, config.out.with_suffix(".png"))
    return found


def machine() -> dict[str, Any]:
    """The hardware and software that the figures depend on."""
    device = jax.devices()[0]
    versions = {"jax": jax.__version__, "python": platform.python_version(), "platform": platform.platform()}
    return {"device": device.device_kind, "backend": device.platform, "devices": jax.device_count()} | versions


def measure_ceilings(config: Config) -> dict[str, float]:
    """FLOP/s of a chain of products at the update's shapes, and bytes/s of a stream."""
    chain, flops = matmul_chain(config.batch_size, config.width)
    triad, moved = stream()
    chains, streams = [], []
    for _ in range(5):
        chains.append(flops / seconds_of(chain))
        streams.append(moved / seconds_of(triad))
    return {"flops_per_second": median(chains), "bytes_per_second": median(streams)}


def measure_update(config: Config, dataset: Any, most: int, seeds: int, ceilings: dict[str, float]) -> dict[str, Any]:
    """One row: compile time, milliseconds per update, XLA's counts of its work, and its share of the device's limit."""
    # The first call compiles; a short chunk then shows how many updates fill the wanted time.
    agent = make_agent(config.agent, width=config.width, layers=config.layers, backprop_steps=most)
    chunk = Chunks(agent, dataset, seeds=seeds, batch_size=config.batch_size)
    compile_seconds = timed(chunk)
    chunk.updates = 4
    chunk.updates = max(4, int(4 * config.chunk_seconds / timed(chunk)))
    times = [1000 * timed(chunk) / chunk.updates for _ in range(config.chunks)]
    p10, middle, p90 = np.percentile(times, [10, 50, 90])
    # The trace is of a chunk of its own, because profiling slows it down.
    if config.trace is not None:
        with jax.profiler.trace(str(config.trace / f"backprop-steps-{most}-seeds-{seeds}")):
            jax.block_until_ready(chunk())
    # Every jump count is drawn equally often, so the work of an update is the mean over them.
    counts = [costs(one_update(step, dataset, batch_size=config.batch_size)) for step in steps_of(agent)]
    flops, moved = (float(np.mean(column)) * seeds for column in zip(*counts, strict=True))
    trained = optimiser_bytes(chunk.state.agent)
    floor = flops / ceilings["flops_per_second"] + trained / ceilings["bytes_per_second"]
    return {
        "backprop_steps": most,
        "seeds": seeds,
        "compile_seconds": compile_seconds,
        "updates_per_chunk": chunk.updates,
        "milliseconds": middle,
        "p10": p10,
        "p90": p90,
        "updates_per_second": 1000 / middle,
        "seed_updates_per_second": 1000 * seeds / middle,
        "gigaflops_per_update": flops / 1e9,
        "megabytes_per_update": moved / 1e6,
        "floor_milliseconds": 1000 * floor,
        "fraction_of_roofline": 1000 * floor / middle,
        "peak_megabytes": peak_bytes(chunk) / 1e6,
    }


def steps_of(agent: Any) -> list[Any]:
    """Agents with a fixed jump count, one for each count that `agent` draws; their mean cost is that of `agent`."""
    counts = getattr(agent, "step_counts", None)
    if counts is None:
        return [agent]
    return [Pinned(dataclasses.replace(agent, backprop_steps=steps)) for steps in counts]


def peak_bytes(chunk: Chunks) -> float:
    """Peak memory in use on the device or, if it does not report that (a CPU), the memory that the program needs."""
    statistics = jax.devices()[0].memory_stats()
    if statistics is not None:
        return statistics["peak_bytes_in_use"]
    found = chunk.compiled().memory_analysis()
    sizes = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return sum(sizes) - found.alias_size_in_bytes


def measure_decision(config: Config, batch: int, candidates: int, steps: int) -> dict[str, Any]:
    """One row: milliseconds per decision for a batch of observations, from the call to the actions on the host."""
    agent = make_agent(config.agent, width=config.width, layers=config.layers, backprop_steps=8)
    state = agent.init(config.observation_size, config.action_size, key=jax.random.key(0))
    normalisation = Normalisation.identity(config.observation_size, config.action_size)
    observations = np.zeros((batch, config.observation_size), np.float32)
    keys = jax.random.split(jax.random.key(0), batch)
    budget = Budget(steps, candidates)
    call = partial(decide, agent.actor, agent.policy(state), normalisation, observations, keys, budget)
    np.asarray(call())
    times = []
    while len(times) < 20 or sum(times) < 0.5 * config.chunk_seconds:
        start = time.perf_counter()
        np.asarray(call())
        times.append(time.perf_counter() - start)
    p50, p95 = np.percentile(times, [50, 95])
    return {
        "batch": batch,
        "inference_steps": steps,
        "candidates": candidates,
        "milliseconds": 1000 * p50,
        "p95": 1000 * p95,
        "decisions_per_second": batch / p50,
    }


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def print_machine(config: Config, ceilings: dict[str, float]) -> None:
    """Prints the device, the networks and the device's limits."""
    here = machine()
    networks = f"{config.agent}, {config.layers} x {config.width}, batch {config.batch_size}, {config.matmul_precision}"
    print(f"{here['device']} ({here['backend']}), jax {here['jax']}; {networks}")
    print(
        f"ceilings: {ceilings['flops_per_second'] / 1e9:.0f} GFLOP/s in a chain of products, "
        f"{ceilings['bytes_per_second'] / 1e9:.1f} GB/s in a stream; seeds: {loop.default_seed_mapping()}"
    )


def print_updates(rows: list[dict[str, Any]]) -> None:
    """Prints the table of updates."""
    print(
        f"{'M^BTT':>6} {'seeds':>6} {'compile s':>10} {'ms/update':>10} {'p10':>8} {'p90':>8} {'seed-updates/s':>15} "
        f"{'GFLOP':>8} {'MB':>8} {'of roofline':>12} {'peak MB':>8}"
    )
    for row in rows:
        print(
            f"{row['backprop_steps']:>6} {row['seeds']:>6} {row['compile_seconds']:>10.1f} "
            f"{row['milliseconds']:>10.2f} {row['p10']:>8.2f} {row['p90']:>8.2f} "
            f"{row['seed_updates_per_second']:>15.0f} {row['gigaflops_per_update']:>8.2f} "
            f"{row['megabytes_per_update']:>8.0f} {row['fraction_of_roofline']:>12.2f} {row['peak_megabytes']:>8.0f}"
        )


def print_decisions(rows: list[dict[str, Any]]) -> None:
    """Prints the table of decisions."""
    if rows:
        print(f"{'batch':>6} {'M^inf':>6} {'N':>4} {'ms':>9} {'p95':>9} {'decisions/s':>12}")
    for row in rows:
        print(
            f"{row['batch']:>6} {row['inference_steps']:>6} {row['candidates']:>4} {row['milliseconds']:>9.3f} "
            f"{row['p95']:>9.3f} {row['decisions_per_second']:>12.0f}"
        )


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Prints and **returns** the ratios of times, second file to first, at the points that both have."""
    ratios: dict[str, Any] = {}
    for kind, names in (
        ("updates", ("backprop_steps", "seeds")),
        ("decisions", ("batch", "inference_steps", "candidates")),
    ):
        old = {tuple(row[name] for name in names): row["milliseconds"] for row in before[kind]}
        new = {tuple(row[name] for name in names): row["milliseconds"] for row in after[kind]}
        ratios[kind] = [
            dict(zip(names, point, strict=True)) | {"ratio": new[point] / old[point]} for point in old if point in new
        ]
        print(f"{kind}: time in the second file / time in the first")
        for row in ratios[kind]:
            print("  " + ", ".join(f"{name} {row[name]}" for name in names) + f": {row['ratio']:.3f}")
    return ratios


def draw(found: dict[str, Any], path: Path) -> None:
    """Draws training time against M^BTT, and decision time against M^inf, as in the paper's figure of runtimes."""
    if (pyplot := pyplot_without_screen()) is None:
        return
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for seeds in sorted({row["seeds"] for row in found["updates"]}):
        rows = [row for row in found["updates"] if row["seeds"] == seeds]
        middle = np.array([row["milliseconds"] for row in rows])
        spread = np.abs(np.array([[row["p10"], row["p90"]] for row in rows]).T - middle)
        places = [row["backprop_steps"] for row in rows]
        left.errorbar(places, middle, spread, marker="o", capsize=3, label=f"{seeds} seed{'s' * (seeds > 1)}")
    left.set(xlabel="$M^{BTT}$", ylabel="ms per update", title="training")
    for batch, candidates in sorted({(row["batch"], row["candidates"]) for row in found["decisions"]}):
        rows = [row for row in found["decisions"] if (row["batch"], row["candidates"]) == (batch, candidates)]
        places = [row["inference_steps"] for row in rows]
        right.plot(places, [row["milliseconds"] for row in rows], "o-", label=f"batch {batch}, N = {candidates}")
    right.set(xlabel="$M^{inf}$", ylabel="ms per decision", title="inference")
    for axes, key in ((left, "backprop_steps"), (right, "inference_steps")):
        logarithmic(axes, found["settings"][key])
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"{found['machine']['device']}, {found['settings']['agent']}", fontsize=10)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    print(f"Drew {path}")


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/runtime.py"))
