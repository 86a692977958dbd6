"""How much faster is an evaluation than a serial loop, and how close to what the cores can simulate and decide?"""

if __name__ == "__main__":
    from sorl.system import entry  # before the other imports, which take seconds

    entry.run("evaluation")

import dataclasses
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from ceilings import matmul_chain, seconds_of
from simulation import Simulators
from updates import costs

from sorl import Budget, Normalisation, Policy, Sorl, evaluate_policy, load_run
from sorl.environments.ogbench import OgbenchEnvironment
from sorl.environments.pool import DEFAULT_WORKERS, EnvironmentPool
from sorl.evaluate.deciding import batch_rows
from sorl.evaluate.episodes import episode_seeds
from sorl.policy import decide
from sorl.system import command_line
from sorl.system.cores import available_cores
from sorl.system.files import write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """Plays episodes both ways in turns, in one process, and compares environment steps per second (policy included).

    The serial loop plays some of the evaluation's own episodes, with the same policy, budget, seeds and noise. The
    ceiling is the rate at which all cores would do nothing but simulate (each by itself, all at once) and multiply (the
    decision's FLOPs, at the speed of a chain of products with the rows and the width of an evaluation's).
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Run directory with the policy to play; default: freshly initialised networks, which never succeed."""
    env: str = "cube-single-play-singletask-task1-v0"
    """Environment for freshly initialised networks; a run uses its own."""
    inference_steps: tuple[int, ...] = (4,)
    """Sequential budgets M^inf."""
    candidates: tuple[int, ...] = (1, 8)
    """Parallel budgets N."""
    episodes: int = 50
    """Episodes of an evaluation."""
    serial_episodes: int = 5
    """Number of these episodes that the serial loop plays in each round; each round plays the next ones."""
    rounds: int = 3
    """Number of times that each way is timed; the table shows medians."""
    workers: int | None = None
    """Processes that simulate one environment each; default: one per episode, at most fifty."""
    network: str = "2x256"
    """Hidden layers and units of freshly initialised networks, such as 4x512, the published size."""
    out: Path | None = None
    """JSON file for the figures; default: no file."""


def main(config: Config) -> list[dict[str, Any]]:
    """Prints a table and **returns** its rows."""
    with Environments(config) as environments:
        rows = [
            _compare(config, environments, Budget(steps, candidates))
            for candidates in config.candidates
            for steps in config.inference_steps
        ]
    machine = {
        "device": jax.devices()[0].device_kind,
        "cores": available_cores(),
        "jax": jax.__version__,
        "platform": platform.platform(),
    }
    print(f"{environments.env}, {config.episodes} episodes; {machine}")
    heads = f"{'ratio':>7} {'lowest':>7} {'highest':>8} {'ceiling':>8} {'share':>6}"
    print(f"{'M^inf':>6} {'N':>4} {'steps/s':>9} {'serial steps/s':>15} {heads}")
    for row in rows:
        print(
            f"{row['inference_steps']:>6} {row['candidates']:>4} {row['steps_per_second']:>9.0f} "
            f"{row['serial_steps_per_second']:>15.0f} {row['ratio']:>7.2f} {row['lowest']:>7.2f} "
            f"{row['highest']:>8.2f} {row['ceiling']:>8.0f} {row['share']:>6.2f}"
        )
    if config.out is not None:
        settings = {name: str(value) for name, value in dataclasses.asdict(config).items()}
        write_json(config.out, {"machine": machine, "settings": settings, "rows": rows})
    return rows


class Environments:
    """A pool of workers for the evaluation, an environment in this process for the serial loop, and bare simulators."""

    def __init__(self, config: Config):
        self.env, self.policy = _subject(config)
        self.pool = EnvironmentPool(self.env, workers=min(config.workers or DEFAULT_WORKERS, config.episodes))
        self.alone = OgbenchEnvironment(self.env, "pre")
        self.simulators = Simulators(self.env, available_cores())

    def __enter__(self) -> "Environments":
        return self

    def __exit__(self, *_: Any) -> None:
        self.pool.close()
        self.simulators.close()


def _subject(config: Config) -> tuple[str, Policy]:
    """The environment to play in, and the policy."""
    if config.run is not None:
        run = load_run(config.run)
        if run.config.env is None:
            raise SystemExit(f"{config.run} was trained without an environment; give a run that has one.")
        return run.config.env, next(iter(run.chosen(None).values()))
    layers, width = map(int, config.network.split("x"))
    agent = Sorl(hidden_sizes=(width,) * layers, critic_hidden_sizes=(width,) * layers)
    sizes = OgbenchEnvironment(config.env, "pre").sizes()
    networks = jax.jit(lambda key: agent.policy(agent.init(*sizes, key=key)))(jax.random.key(0))
    return config.env, Policy(agent.actor, networks, Normalisation.identity(*sizes))


def _compare(config: Config, environments: Environments, budget: Budget) -> dict[str, Any]:
    """Times the evaluation and the serial loop in turns at one budget, and **returns** their medians and ratio."""
    seeds = episode_seeds(0, config.episodes)
    _serial(environments, budget, seeds, [0], steps=2)  # compiles
    width = max(leaf.shape[-1] for leaf in jax.tree.leaves(environments.policy.networks) if leaf.ndim)
    chain, chain_flops = matmul_chain(batch_rows(config.episodes, budget.candidates) * budget.candidates, width)
    flops = _flops(environments, budget)
    found: dict[str, list[float]] = {"together": [], "serial": [], "length": [], "ceiling": []}
    for turn in range(config.rounds):
        result = evaluate_policy(environments.policy, environments.pool, budget=budget, episodes=config.episodes)
        found["together"].append(result.steps_per_second)
        found["length"].append(float(result.lengths.mean()))
        first = turn * config.serial_episodes
        own = [episode % config.episodes for episode in range(first, first + config.serial_episodes)]
        found["serial"].append(_serial(environments, budget, seeds, own))
        simulation = environments.simulators.seconds_of_a_step(int(seeds[own[0]])) / available_cores()
        found["ceiling"].append(1 / (simulation + flops * seconds_of(chain) / chain_flops))
    together, serial, ceiling = (np.array(found[name]) for name in ("together", "serial", "ceiling"))
    # Ratios are taken within a round, so that slow changes of the machine's speed cancel.
    return {
        "inference_steps": budget.inference_steps,
        "candidates": budget.candidates,
        "steps_per_second": float(np.median(together)),
        "serial_steps_per_second": float(np.median(serial)),
        "ratio": float(np.median(together / serial)),
        "lowest": float(np.min(together / serial)),
        "highest": float(np.max(together / serial)),
        "ceiling": float(np.median(ceiling)),
        "share": float(np.median(together / ceiling)),
        "rounds": found,
    }


@jax.jit
def _decide_for_one(actor, networks, normalisation, budget, key, episode, step, observation):
    own = jax.random.fold_in(jax.random.fold_in(key, episode), step)
    return decide(actor, networks, normalisation, observation[None], own[None], budget)[0]


def _serial(environments: Environments, budget: Budget, seeds: Any, episodes: list[int], steps: int = 10**9) -> float:
    """Environment steps per second of a plain loop over `episodes`, with at most `steps` steps of each."""
    policy, environment = environments.policy, environments.alone
    program = policy.actor, policy.networks, policy.normalisation, budget, jax.random.key(0)
    taken, start = 0, time.perf_counter()
    for episode in episodes:
        observation, step, done = environment.reset(int(seeds[episode])), 0, False
        while not done and step < steps:
            action = np.asarray(_decide_for_one(*program, episode, step, observation))
            observation, _, _, done = environment.step(action)
            step += 1
        taken += step
    return taken / (time.perf_counter() - start)


def _flops(environments: Environments, budget: Budget) -> float:
    """XLA's count for one decision."""
    policy, observation = environments.policy, np.zeros(environments.policy.observation_size, np.float32)
    program = policy.actor, policy.networks, policy.normalisation, budget, jax.random.key(0)
    return costs(_decide_for_one.lower(*program, 0, 0, observation).compile())[0]


def command() -> None:
    """Runs the command line."""
    main(command_line.parse(Config, prog="python benchmarks/evaluation.py"))
