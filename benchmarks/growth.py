"""How do time and memory of an update grow with seeds, batch, width, M^BTT and the data set?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("growth")

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from pictures import logarithmic, pyplot_without_screen
from runtime import machine, peak_bytes, timed
from updates import Chunks, made_up_dataset, make_agent

from sorl.system import command_line
from sorl.system.files import write_json
from sorl.train import loop


@dataclasses.dataclass(frozen=True)
class Config:
    """Varies one quantity at a time, and reports milliseconds per update and peak bytes.

    All other quantities have their usual values. The points of a line are timed in turns, one chunk each per round, and
    the table shows medians.
    """

    seeds: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of seeds trained together, with `seed_mapping`."""
    batch_sizes: tuple[int, ...] = (64, 256, 1024, 4096)
    """Transitions of one update."""
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    """Units of each hidden layer."""
    backprop_steps: tuple[int, ...] = (1, 2, 4, 8, 16)
    """M^BTT; the discretisation M^disc is the larger of M^BTT and 8."""
    rows: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Rows of the data set on the device."""
    seed_mapping: loop.SeedMapping | None = None
    """How several seeds run; default: `map` on a CPU, `vmap` elsewhere."""
    usual_batch_size: int = 256
    """Batch size when it is not varied."""
    usual_width: int = 256
    """Width when it is not varied."""
    usual_backprop_steps: int = 8
    """M^BTT when it is not varied."""
    usual_rows: int = 10_000
    """Rows of the data set when they are not varied."""
    layers: int = 2
    """Hidden layers of policy and critics."""
    observation_size: int = 28
    """Length of an observation (28: cube-single)."""
    action_size: int = 5
    """Length of an action (5: cube-single)."""
    rounds: int = 5
    """Number of timed chunks for each point."""
    chunk_seconds: float = 0.5
    """Approximate length of each chunk, in seconds."""
    out: Path | None = None
    """JSON file for all figures; with matplotlib, a PNG picture of the same name is drawn beside it."""


LINES = {"seeds": "seeds", "batch_sizes": "batch", "widths": "width", "backprop_steps": "M^BTT", "rows": "rows"}
"""The options that are varied, and their names on the axis."""


def main(config: Config) -> dict[str, Any]:
    """Measures, prints and writes all figures, and **returns** them."""
    found: dict[str, Any] = {"machine": machine(), "settings": dataclasses.asdict(config) | {"out": str(config.out)}}
    print(f"{found['machine']['device']}, jax {jax.__version__}, {config.layers} hidden layers")
    for option, name in LINES.items():
        found[option] = measure_line(config, option)
        print(
            f"{name:>9} {'ms/update':>10} {'lowest':>8} {'highest':>8} {'peak MB':>8} {'data MB':>8} {'states MB':>10}"
        )
        for row in found[option]:
            print(
                f"{row['value']:>9} {row['milliseconds']:>10.2f} {row['lowest']:>8.2f} {row['highest']:>8.2f} "
                f"{row['peak_bytes'] / 1e6:>8.1f} {row['dataset_bytes'] / 1e6:>8.1f} {row['state_bytes'] / 1e6:>10.1f}"
            )
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, found)
        draw(found, config.out.with_suffix(".png"))
    return found


def measure_line(config: Config, option: str) -> list[dict[str, Any]]:
    """Times each value of an option in turns, and **returns** a row for each."""
    chunks = {value: make_chunk(config, option, value) for value in getattr(config, option)}
    for chunk in chunks.values():
        timed(chunk)  # compiles
        chunk.updates = 4
        chunk.updates = max(4, int(4 * config.chunk_seconds / timed(chunk)))
    times: dict[int, list[float]] = {value: [] for value in chunks}
    for _ in range(config.rounds):
        for value, chunk in chunks.items():
            times[value].append(1000 * timed(chunk) / chunk.updates)
    return [
        {
            "value": value,
            "milliseconds": float(np.median(times[value])),
            "lowest": min(times[value]),
            "highest": max(times[value]),
            "peak_bytes": peak_bytes(chunk),
            "dataset_bytes": size_of(chunk.dataset),
            "state_bytes": size_of(chunk.state),
        }
        for value, chunk in chunks.items()
    ]


def make_chunk(config: Config, option: str, value: int) -> Chunks:
    """A training with this value of one option and the usual values of the others."""
    chosen = {
        "seeds": 1,
        "batch_sizes": config.usual_batch_size,
        "widths": config.usual_width,
        "backprop_steps": config.usual_backprop_steps,
        "rows": config.usual_rows,
    } | {option: value}
    agent = make_agent("Sorl", width=chosen["widths"], layers=config.layers, backprop_steps=chosen["backprop_steps"])
    dataset = made_up_dataset(chosen["rows"], config.observation_size, config.action_size)
    return Chunks(
        agent,
        dataset,
        seeds=chosen["seeds"],
        batch_size=chosen["batch_sizes"],
        seed_mapping=config.seed_mapping,
    )


def size_of(tree: Any) -> int:
    """Bytes of all arrays of a pytree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def draw(found: dict[str, Any], path: Path) -> None:
    """Draws milliseconds against each quantity but the last, and memory against rows, on logarithmic axes."""
    if (pyplot := pyplot_without_screen()) is None:
        return
    figure, axes = pyplot.subplots(1, len(LINES), figsize=(3.0 * len(LINES), 3.2), layout="constrained")
    for place, (option, name) in zip(axes, LINES.items(), strict=True):
        values = [row["value"] for row in found[option]]
        if option == "rows":
            for key, label in (("peak_bytes", "an update at once"), ("dataset_bytes", "data set")):
                place.plot(values, [row[key] / 1e6 for row in found[option]], "o-", label=label)
            place.legend(frameon=False, fontsize=8)
        else:
            place.plot(values, [row["milliseconds"] for row in found[option]], "o-")
        unit = "MB" if option == "rows" else "ms an update"
        place.set(xlabel=name, ylabel=unit)
        logarithmic(place, values)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/growth.py"))
