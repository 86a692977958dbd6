"""What a sweep will take: the runs, the source of their settings, and time and memory from a short measurement."""

import dataclasses
import heapq
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sorl.config.json_form import to_json
from sorl.config.options import TrainConfig
from sorl.data.transitions import Dataset
from sorl.environments.serial import SerialEnvironments
from sorl.sweep.grid import PlannedRun
from sorl.sweep.table import duration
from sorl.train import hyperparameters, loop
from sorl.train.trainer import initial


ROWS = 10_000
"""Rows of the made-up data, whose values change neither time nor memory."""
WARM_UP, UPDATES = 2, 8
"""Updates before and within the measurement."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a run's updates on this machine."""

    seconds: float
    """Seconds of one update of all members of the run: its seeds, or those of its population."""
    compilation: float
    """Seconds until the first update."""
    bytes: int
    """Bytes of the device for the state and the update, without the data."""

    def run_seconds(self, updates: int) -> float:
        """Seconds of a run of so many updates."""
        return self.compilation + self.seconds * updates


def show(runs: Sequence[PlannedRun], jobs: int, *, measure: bool) -> None:
    """Prints the runs, and if `measure` is set an estimate for `jobs` runs at a time."""
    costs: dict[str, Cost] = {}
    for number, planned in enumerate(runs, start=1):
        cost = ""
        if measure:
            shape = shape_of(planned.config)
            if shape not in costs:
                print(f"Measuring {planned.run.agent} ..", file=sys.stderr, flush=True)
                costs[shape] = cost_of(planned.config)
            found = costs[shape]
            seconds = found.run_seconds(planned.config.updates)
            cost = f"; about {duration(seconds)}, {found.bytes / 2**20:.0f} MiB"
        print(f"{number:5d}  {planned.run.title}: {planned.config.updates} updates{cost}")
        print(f"       {planned.run.source} -> {planned.run.directory}")
    print(f"{len(runs)} runs of {sum(len(planned.run.policies) for planned in runs)} trainings.")
    if not measure:
        return
    seconds = [costs[shape_of(one.config)].run_seconds(one.config.updates) for one in runs]
    most = max(cost.bytes for cost in costs.values())
    device = jax.devices()[0].device_kind
    print(
        f"About {duration(last_end(seconds, jobs))} for the updates of all runs, {jobs} at a time as fast as each "
        f"alone, from {UPDATES} updates of each of {len(costs)} shapes on this machine ({device}); data and "
        f"evaluations come on top. Memory, of the state and of an update: at most {most / 2**20:.0f} MiB a run, and "
        "its data."
    )


def last_end(seconds: Sequence[float], jobs: int) -> float:
    """The time at which the last of some runs ends, if each starts in its turn as soon as fewer than `jobs` run."""
    ends = [0.0] * jobs
    for one in seconds:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def shape_of(config: TrainConfig) -> str:
    """What the cost of an update depends on: the agent's sizes and switches, the batch, and the number of members.

    Real-valued options and names change no size, but None turns something off; the sizes of environments change the
    cost little.
    """
    options = to_json(config.shared_agent)
    sizes = {name: value for name, value in options.items() if value is None or isinstance(value, int | list)}
    return json.dumps([type(config.agent).__name__, sizes, config.batch_size, len(config.members)], sort_keys=True)


def cost_of(config: TrainConfig) -> Cost:
    """Measures some updates of a run on made-up data of its environment's sizes."""
    dataset = _made_up(*_sizes(config))
    mapping = loop.default_seed_mapping() if config.seed_mapping == "auto" else config.seed_mapping
    agent, state = config.shared_agent, initial(config, dataset)
    own = hyperparameters.own_settings([member.agent for member in config.members.values()])
    options: dict[str, Any] = {"batch_size": config.batch_size, "log_interval": 1000, "seed_mapping": mapping}
    start = time.perf_counter()
    with jax.default_matmul_precision(config.matmul_precision):
        program = loop.run_chunk.lower(agent, state, dataset, jnp.int32(1), own, **options).compile()
        compilation = time.perf_counter() - start
        state = jax.block_until_ready(program(agent, state, dataset, jnp.int32(WARM_UP), own))
        start = time.perf_counter()
        jax.block_until_ready(program(agent, state, dataset, jnp.int32(UPDATES), own))
    seconds = (time.perf_counter() - start) / UPDATES
    return Cost(seconds, compilation, _bytes(program, dataset))


def _bytes(program: Any, dataset: Dataset) -> int:
    memory = program.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return used + memory.temp_size_in_bytes - sum(leaf.nbytes for leaf in jax.tree.leaves(dataset))


def _sizes(config: TrainConfig) -> tuple[int, int]:
    """The sizes of observations and actions: of the environment, or of the logs where there is none."""
    if config.env is None:
        return config.source.load().train.sizes
    return SerialEnvironments(config.env).sizes()


def _made_up(observation_size: int, action_size: int) -> Dataset:
    generator = np.random.default_rng(0)
    return Dataset(
        observations=jnp.asarray(generator.normal(size=(ROWS, observation_size)), jnp.float32),
        actions=jnp.asarray(generator.uniform(-1, 1, (ROWS, action_size)), jnp.float32),
        rewards=-jnp.ones(ROWS),
        masks=jnp.ones(ROWS),
        starts=jnp.arange(ROWS - 1),
    )
