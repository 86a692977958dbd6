"""Does a policy that was planned for a time limit keep it? Plans for several limits, and measures each choice again."""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("latency")

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from sorl import load_policy
from sorl.system import command_line


@dataclasses.dataclass(frozen=True)
class Config:
    """Plans for each limit, then times calls at the chosen budget with one observation each, from numpy to numpy."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory, or a policy file."""
    limits: tuple[float, ...] = (0.5, 2.0, 10.0, 50.0)
    """Time limits of a decision, in milliseconds."""
    calls: int = 1000
    """Number of timed calls at each limit."""
    tolerance: float = 1.25
    """The largest allowed ratio of the 95th percentile to the limit."""
    seed: int | None = None
    """Training seed of the policy in a run directory; default: the lowest."""
    measure_again: bool = False
    """Measure latencies again, even if the user's cache has them."""


def main(config: Config) -> list[dict[str, Any]]:
    """Prints and **returns** a row for each limit; the first plan measures the latency of every budget."""
    policy = load_policy(config.run, config.seed)
    rows = []
    for index, limit in enumerate(config.limits):
        try:
            chosen = policy.for_latency(limit, measure_again=config.measure_again and index == 0)
        except ValueError as error:
            rows.append({"limit": limit, "kept": True})
            print(f"{limit:g} ms: {error}")
            continue
        p95 = _p95(chosen, config.calls)
        kept = p95 <= config.tolerance * limit
        rows.append({"limit": limit, "budget": chosen.budget.name, "p95": p95, "kept": kept})
        print(f"{limit:g} ms: {chosen.plan}\n  measured again: {p95:.3f} ms, {'kept' if kept else 'NOT KEPT'}")
    return rows


def _p95(policy: Any, calls: int) -> float:
    noise = np.random.default_rng(0).normal(size=(calls, policy.observation_size))
    observations = np.asarray(policy.normalisation.observation_mean) + noise
    milliseconds = []
    for observation, key in zip(observations, jax.random.split(jax.random.key(0), calls), strict=True):
        start = time.perf_counter()
        policy(observation, key=key)
        milliseconds.append(1000 * (time.perf_counter() - start))
    return float(np.quantile(milliseconds, 0.95))


def command() -> int:
    """Runs the command line; **returns** 1 if a limit was not kept."""
    rows = main(command_line.parse(Config, prog="python benchmarks/latency.py"))
    return 0 if all(row["kept"] for row in rows) else 1
