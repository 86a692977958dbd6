"""Success of a policy at a compute budget, over a fixed number of seeded episodes.

Episode i is row i of a batch that always has one row for each episode, played or not. So the policy is one program for
the whole evaluation, and neither the number of workers nor the way they share the episodes can change a result.
"""

import dataclasses
import importlib.metadata
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from sorl.agents import AbstractAgent, Budget
from sorl.environments import Environments, Outcome, SuccessTiming
from sorl.normalisation import Normalisation
from sorl.policy import decide
from sorl.statistics import wilson_interval


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """The episodes of one policy at one budget."""

    env: str
    budget: Budget
    seed: int
    """Decides the episodes, their initial states and the policy's noise alike."""
    success_timing: SuccessTiming
    ogbench_version: str
    episode_seeds: Int[np.ndarray, " episodes"]
    success: Bool[np.ndarray, " episodes"]
    """`info["success"]` at the episode's last step."""
    returns: Float[np.ndarray, " episodes"]
    """Undiscounted sums of rewards."""
    lengths: Int[np.ndarray, " episodes"]
    """Environment steps."""
    seconds: float
    """Wall-clock time of the episodes, without compilation and the making of environments."""

    @property
    def steps_per_second(self) -> float:
        """Environment steps per second, the policy's decisions included."""
        return float(self.lengths.sum()) / self.seconds

    def row(self) -> dict[str, Any]:
        """One line of a table, JSON-able: budget, counts, means, Wilson's 95 % interval of the success, and timing."""
        successes, episodes = int(self.success.sum()), len(self.success)
        low, high = wilson_interval(successes, episodes)
        return dataclasses.asdict(self.budget) | {
            "env": self.env,
            "seed": self.seed,
            "episodes": episodes,
            "successes": successes,
            "success": successes / episodes,
            "success_low": low,
            "success_high": high,
            "return": float(self.returns.mean()),
            "length": float(self.lengths.mean()),
            "seconds": self.seconds,
            "steps_per_second": self.steps_per_second,
            "success_timing": self.success_timing,
            "ogbench_version": self.ogbench_version,
        }

    def per_episode(self) -> dict[str, list[Any]]:
        """What `row` averages over, JSON-able: one entry for each episode."""
        names = ("episode_seeds", "success", "returns", "lengths")
        return {name: getattr(self, name).tolist() for name in names}


class Moment(NamedTuple):
    """One step of all episodes under way."""

    episodes: Int[np.ndarray, " playing"]
    """Their numbers."""
    slots: Int[np.ndarray, " playing"]
    """Which environments they play in."""
    outcome: Outcome


def evaluate(
    agent: AbstractAgent,
    policy: PyTree,
    environments: Environments,
    *,
    normalisation: Normalisation,
    budget: Budget,
    episodes: int,
    seed: int = 0,
) -> EvaluationResult:
    """Plays `episodes` episodes; the result depends on neither the kind nor the number of environments.

    Every budget meets the same episodes, so that budgets can be compared in pairs. The policy is compiled once for
    each structure of agent and policy, budget and number of episodes.

    **Arguments:** `agent` and its `policy`; `environments`, used by nothing else meanwhile; `normalisation`, of the
    data that the policy was trained on; `budget` of each decision; `episodes`, at least 1; `seed` of the episodes.

    Raises a `ValueError` if policy and environment differ in their sizes, a `FloatingPointError` if the policy gives
    an action that is not finite, and an `EnvironmentWorkerError` if a worker fails.
    """
    if episodes < 1:
        raise ValueError(f"An evaluation over {episodes} episodes says nothing; give at least 1.")
    _prepare(agent, policy, environments, normalisation, budget, episodes)
    success = np.zeros(episodes, bool)
    returns = np.zeros(episodes)
    lengths = np.zeros(episodes, np.int64)
    start = time.perf_counter()
    for moment in play(
        agent, policy, environments, normalisation=normalisation, budget=budget, episodes=episodes, seed=seed
    ):
        success[moment.episodes] = moment.outcome.success  # the last step's remains
        returns[moment.episodes] += moment.outcome.rewards
        lengths[moment.episodes] += 1
    return EvaluationResult(
        env=environments.env_name,
        budget=budget,
        seed=seed,
        success_timing=environments.success_timing,
        ogbench_version=importlib.metadata.version("ogbench"),
        episode_seeds=episode_seeds(seed, episodes),
        success=success,
        returns=returns,
        lengths=lengths,
        seconds=time.perf_counter() - start,
    )


def play(
    agent: AbstractAgent,
    policy: PyTree,
    environments: Environments,
    *,
    normalisation: Normalisation,
    budget: Budget,
    episodes: int,
    seed: int,
    first: int | None = None,
) -> Iterator[Moment]:
    """Plays the episodes of an evaluation, as many at a time as there are environments, step by step.

    **Arguments:** as for `evaluate`; `first`, to play only the first so many of the `episodes` (the same as they are
    among all).
    """
    key, seeds = jax.random.key(seed), episode_seeds(seed, episodes)
    observations = np.zeros((episodes, len(normalisation.observation_mean)), np.float32)
    steps = np.zeros(episodes, np.int32)
    waiting = np.arange(episodes if first is None else first)
    free = np.arange(len(environments))
    playing, slots = waiting[:0], free[:0]
    while True:
        count = min(len(free), len(waiting))
        started, waiting = waiting[:count], waiting[count:]
        places, free = free[:count], free[count:]
        if count:
            observations[started] = environments.reset(places, seeds[started])
        playing, slots = np.append(playing, started), np.append(slots, places)
        if not len(playing):
            return
        actions = np.asarray(_decide(agent, policy, normalisation, budget, key, steps, observations))[playing]
        _refuse_non_finite(actions, playing, steps)
        outcome = environments.step(slots, actions)
        yield Moment(playing, slots, outcome)
        observations[playing] = outcome.observations
        steps[playing] += 1
        free = np.append(free, slots[outcome.done])
        playing, slots = playing[~outcome.done], slots[~outcome.done]


def episode_seeds(seed: int, episodes: int) -> Int[np.ndarray, " episodes"]:
    """The environment's seed in each episode, below 2^32; an episode's does not depend on how many there are."""
    words = [np.random.SeedSequence((seed, episode)).generate_state(1)[0] for episode in range(episodes)]
    return np.array(words, np.int64)


@jax.jit
def _decide(
    agent: AbstractAgent,
    policy: Any,
    normalisation: Normalisation,
    budget: Budget,
    key: Key[Array, ""],
    steps: Int[Array, " episodes"],
    observations: Float[Array, "episodes observation"],
) -> Float[Array, "episodes action"]:
    """The next action of each episode, in the environment's units; its noise is a matter of seed, episode and step."""
    episode_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(len(steps)))
    keys = jax.vmap(jax.random.fold_in)(episode_keys, steps)
    return decide(agent, policy, normalisation, observations, keys, budget)


def _prepare(
    agent: AbstractAgent,
    policy: Any,
    environments: Environments,
    normalisation: Normalisation,
    budget: Budget,
    episodes: int,
) -> None:
    """Compiles the policy and waits for the environments, so that neither counts as playing time."""
    sizes = len(normalisation.observation_mean), len(normalisation.action_low)
    found = environments.sizes()
    if found != sizes:
        raise ValueError(
            f"The policy takes observations of size {sizes[0]} and gives actions of size {sizes[1]}, but "
            f"{environments.env_name} has {found[0]} and {found[1]}; evaluate it where it was trained."
        )
    steps, observations = np.zeros(episodes, np.int32), np.zeros((episodes, sizes[0]), np.float32)
    _decide(agent, policy, normalisation, budget, jax.random.key(0), steps, observations).block_until_ready()


def _refuse_non_finite(actions: Float[np.ndarray, "playing action"], playing: Any, steps: Any) -> None:
    # MuJoCo would reset such an episode in silence.
    bad = ~np.isfinite(actions).all(axis=1)
    if bad.any():
        episode = playing[bad][0]
        raise FloatingPointError(
            f"The policy's action in episode {episode} at step {steps[episode]} is not finite; its weights probably "
            "are not either: evaluate an earlier checkpoint."
        )
