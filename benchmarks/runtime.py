"""How long one training update takes, against the number of jumps M^BTT that the Q loss backpropagates through."""

import dataclasses
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from sorl import Dataset, Sorl, training


@dataclasses.dataclass(frozen=True)
class Config:
    """Times jitted updates inside the scanned chunk that training runs, on made-up data of a given size."""

    backprop_steps: tuple[int, ...] = (1, 2, 4, 8)
    """M^BTT: largest jump counts to time."""
    seeds: tuple[int, ...] = (1,)
    """Numbers of seeds to train side by side."""
    width: int = 512
    """Units of each hidden layer."""
    layers: int = 4
    """Hidden layers of policy and critics."""
    batch_size: int = 256
    """Transitions of one update."""
    observation_size: int = 28
    """Length of an observation (28: cube-single)."""
    action_size: int = 5
    """Length of an action (5: cube-single)."""
    rows: int = 100_000
    """Rows of the data set on the device."""
    chunk_seconds: float = 1.0
    """Roughly how long each timed chunk is, in seconds."""
    chunks: int = 10
    """Timed chunks, of which median, 10th and 90th percentile are told."""
    out: Path | None = None
    """JSON file for the figures; by default none is written."""


def main(config: Config) -> list[dict[str, Any]]:
    """Prints a table and **returns** its rows."""
    dataset = _dataset(config)
    rows = [_measure(config, dataset, most, seeds) for seeds in config.seeds for most in config.backprop_steps]
    networks = f"{config.layers} x {config.width}, batch {config.batch_size}"
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {networks}")
    print(f"{'M^BTT':>6} {'seeds':>6} {'compile s':>10} {'ms/update':>10} {'p10':>8} {'p90':>8} {'seed-updates/s':>15}")
    for row in rows:
        print(
            f"{row['backprop_steps']:>6} {row['seeds']:>6} {row['compile_seconds']:>10.1f} "
            f"{row['milliseconds']:>10.2f} {row['p10']:>8.2f} {row['p90']:>8.2f} "
            f"{row['seed_updates_per_second']:>15.0f}"
        )
    if config.out is not None:
        device = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "platform": platform.platform()}
        settings = dataclasses.asdict(config) | {"out": str(config.out)}
        config.out.write_text(json.dumps({"machine": device, "settings": settings, "rows": rows}, indent=2) + "\n")
    return rows


def _dataset(config: Config) -> Dataset:
    generator = np.random.default_rng(0)
    return Dataset(
        observations=jnp.asarray(generator.normal(size=(config.rows, config.observation_size)), jnp.float32),
        actions=jnp.asarray(generator.uniform(-1, 1, (config.rows, config.action_size)), jnp.float32),
        rewards=-jnp.ones(config.rows),
        masks=jnp.ones(config.rows),
        starts=jnp.arange(config.rows - 1),
    )


def _measure(config: Config, dataset: Dataset, most: int, seeds: int) -> dict[str, Any]:
    widths = (config.width,) * config.layers
    agent = Sorl(hidden_sizes=widths, critic_hidden_sizes=widths, backprop_steps=most)
    state = training.init(agent, dataset, tuple(range(seeds)), batch_size=config.batch_size)

    def chunk(state: training.TrainState, updates: int) -> tuple[training.TrainState, float]:
        start = time.perf_counter()
        state = training.run_chunk(
            agent,
            state,
            dataset,
            jnp.int32(updates),
            batch_size=config.batch_size,
            log_interval=1000,
            seed_mapping=training.default_seed_mapping(),
        )
        jax.block_until_ready(state)
        return state, time.perf_counter() - start

    state, compile_seconds = chunk(state, 1)
    state, seconds = chunk(state, 8)
    updates = max(8, int(8 * config.chunk_seconds / seconds))
    times = []
    for _ in range(config.chunks):
        state, seconds = chunk(state, updates)
        times.append(1000 * seconds / updates)
    p10, median, p90 = np.percentile(times, [10, 50, 90])
    return {
        "backprop_steps": most,
        "seeds": seeds,
        "compile_seconds": compile_seconds,
        "updates_per_chunk": updates,
        "milliseconds": median,
        "p10": p10,
        "p90": p90,
        "seed_updates_per_second": 1000 * seeds / median,
    }


if __name__ == "__main__":
    main(tyro.cli(Config))
