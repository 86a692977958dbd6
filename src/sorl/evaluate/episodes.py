"""Plays seeded episodes with a policy at a compute budget; some are simulated while actions of others are computed.

The policy is one compiled program for a batch with a fixed number of rows, and each episode always has the same row,
with any other episodes in the batch. So neither the number nor the speed of the environments, nor which of them plays
an episode, changes any bit of its result.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from sorl.agents import Budget
from sorl.agents.actors import AbstractActor
from sorl.data.normalisation import Normalisation, Standardisation
from sorl.environments.interface import Outcome
from sorl.environments.pool import Environments
from sorl.policy import Policy, decide


MOST_ROWS = 16
"""Maximum number of rows of a batch: enough for efficient matrix products, and few enough that few rows are idle when
only the last episodes are left."""


class Moment(NamedTuple):
    """One step of some of the running episodes."""

    episodes: Int[np.ndarray, " stepped"]
    """The numbers of these episodes."""
    slots: Int[np.ndarray, " stepped"]
    """The environments that play them."""
    outcome: Outcome


def play(
    policy: Policy,
    environments: Environments,
    *,
    budget: Budget | None = None,
    episodes: int,
    seed: int,
    first: int | None = None,
) -> Iterator[Moment]:
    """Plays the episodes of an evaluation, one per environment at a time and without waiting for the slowest.

    **Arguments:** as for `evaluation.evaluate_policy`; `first`, the number of episodes to play, from the first on; they
    are the same as if all `episodes` were played (default: all).
    """
    batch = _Batch.of(policy if budget is None else policy.with_budget(budget), batch_rows(episodes), seed)
    rollouts = _Rollouts(environments, batch, episode_seeds(seed, episodes), episodes if first is None else first)
    try:
        while rollouts.start():
            if rollouts.due:
                rollouts.act()
            else:
                yield rollouts.receive()
    finally:
        environments.abandon()


def batch_rows(episodes: int) -> int:
    """Number of rows of the batch for this number of episodes: at most `MOST_ROWS`, and equally shared by episodes."""
    return math.ceil(episodes / math.ceil(episodes / MOST_ROWS))


def episode_seeds(seed: int, episodes: int) -> Int[np.ndarray, " episodes"]:
    """The environment's seed of each episode, below 2^32; it does not depend on the number of episodes."""
    words = [np.random.SeedSequence((seed, episode)).generate_state(1)[0] for episode in range(episodes)]
    return np.array(words, np.int64)


def compile_policy(policy: Policy, *, episodes: int) -> None:
    """Compiles the program that `play` uses, unless it is compiled already."""
    batch = _Batch.of(policy, batch_rows(episodes), seed=0)
    nothing = np.arange(0)
    batch.actions(nothing, nothing, np.zeros((0, policy.observation_size), np.float32))


class _Batch(NamedTuple):
    """The arguments of the compiled policy that are the same in all calls."""

    actor: AbstractActor
    networks: PyTree
    standardisation: Standardisation | None
    """The standardisation of observations before the program, as in `Policy`; None if the program does it."""
    normalisation: Normalisation
    """The maps that the program applies."""
    budget: Budget
    rows: int
    key: Array

    @classmethod
    def of(cls, policy: Policy, rows: int, seed: int) -> "_Batch":
        split = policy.normalisation.split()
        return cls(policy.actor, policy.networks, *split, policy.budget, rows, jax.random.key(seed))

    def first_of_each_row(
        self, ready: Int[np.ndarray, " ready"]
    ) -> tuple[Int[np.ndarray, " chosen"], Int[np.ndarray, " left"]]:
        """Splits off the longest-waiting episode of each row; episode i has row i mod `rows`."""
        _, places = np.unique(ready % self.rows, return_index=True)
        return ready[places], np.delete(ready, places)

    def actions(
        self,
        episodes: Int[np.ndarray, " chosen"],
        steps: Int[np.ndarray, " chosen"],
        observations: Float[np.ndarray, "chosen observation"],
    ) -> Float[np.ndarray, "chosen chunk action"]:
        """The next actions of episodes that all have different rows; the input of unused rows is zero."""
        if self.standardisation is not None:
            observations = self.standardisation(observations)
        places, size = episodes % self.rows, observations.shape[1]
        columns = np.zeros(self.rows, np.int32), np.zeros(self.rows, np.int32), np.zeros((self.rows, size), np.float32)
        for column, values in zip(columns, (episodes, steps, observations), strict=True):
            column[places] = values
        arguments = self.actor, self.networks, self.normalisation, self.budget, self.key
        actions = np.asarray(_decide(*arguments, *columns))[places]
        _refuse_non_finite(actions, episodes, steps)
        return actions.reshape(len(places), self.actor.actions_at_once, len(self.normalisation.action_low))


class _Rollouts:
    """The running episodes, each of which waits for an action (`ready`) or for the step of its environment.

    A decision's actions are executed one after the other; if the episode ends before the last one, the rest are unused.
    """

    def __init__(self, environments: Environments, batch: _Batch, seeds: Int[np.ndarray, " episodes"], play: int):
        self._environments, self._batch, self._seeds = environments, batch, seeds
        self._observations = np.zeros((len(seeds), len(batch.normalisation.observation_mean)))
        self._steps = np.zeros(len(seeds), np.int32)
        self._chunk = batch.actor.actions_at_once
        self._actions = np.zeros((len(seeds), self._chunk, len(batch.normalisation.action_low)), np.float32)
        self._slot_of, self._episode_in = np.zeros(len(seeds), np.int64), np.zeros(len(environments), np.int64)
        self._unplayed, self._free = np.arange(play), np.arange(len(environments))
        self._ready, self._stepping = self._unplayed[:0], 0

    def start(self) -> bool:
        """Starts an episode in each free environment. **Returns:** whether any episode is running."""
        count = min(len(self._free), len(self._unplayed))
        if count:
            episodes, self._unplayed = np.split(self._unplayed, [count])
            slots, self._free = np.split(self._free, [count])
            self._observations[episodes] = self._environments.reset(slots, self._seeds[episodes])
            self._slot_of[episodes], self._episode_in[slots] = slots, episodes
            self._ready = np.append(self._ready, episodes)
        return len(self._ready) + self._stepping > 0

    @property
    def due(self) -> bool:
        """Whether to send actions now instead of waiting for steps.

        It acts as soon as half of the episodes are ready, so that the other half is simulated meanwhile. Actions that
        are already decided are sent at once.
        """
        return len(self._ready) >= self._stepping or bool(self._decided().any())

    def act(self) -> None:
        """Sends the ready episodes their decided actions; if there are none, decides for one ready episode per row."""
        decided = self._decided()
        if decided.any():
            episodes, self._ready = self._ready[decided], self._ready[~decided]
        else:
            episodes, self._ready = self._batch.first_of_each_row(self._ready)
            chosen = self._batch.actions(episodes, self._steps[episodes], self._observations[episodes])
            self._actions[episodes] = chosen
        actions = self._actions[episodes, self._steps[episodes] % self._chunk]
        self._environments.step_async(self._slot_of[episodes], actions)
        self._stepping += len(episodes)

    def _decided(self) -> Bool[np.ndarray, " ready"]:
        """Which of the ready episodes have actions left from their last decision."""
        return self._steps[self._ready] % self._chunk > 0

    def receive(self) -> Moment:
        """Receives finished steps, at least as many as make half of the episodes ready if none of them ends."""
        slots, outcome = self._environments.step_wait(math.ceil((self._stepping - len(self._ready)) / 2))
        episodes = self._episode_in[slots]
        self._observations[episodes] = outcome.observations
        self._steps[episodes] += 1
        self._stepping -= len(slots)
        self._free = np.append(self._free, slots[outcome.done])
        self._ready = np.append(self._ready, episodes[~outcome.done])
        return Moment(episodes, slots, outcome)


@jax.jit
def _decide(
    actor: AbstractActor,
    networks: PyTree,
    normalisation: Normalisation,
    budget: Budget,
    key: Key[Array, ""],
    episodes: Int[Array, " rows"],
    steps: Int[Array, " rows"],
    observations: Float[Array, "rows observation"],
) -> Float[Array, "rows *chunk action"]:
    """The next actions of each row, in the environment's units; the noise depends only on seed, episode and step."""
    episode_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, episodes)
    keys = jax.vmap(jax.random.fold_in)(episode_keys, steps)
    return decide(actor, networks, normalisation, observations, keys, budget)


def _refuse_non_finite(
    actions: Float[np.ndarray, "chosen *chunk action"],
    episodes: Int[np.ndarray, " chosen"],
    steps: Int[np.ndarray, " chosen"],
) -> None:
    # MuJoCo would reset such an episode silently.
    bad = ~np.isfinite(actions).all(axis=tuple(range(1, actions.ndim)))
    if bad.any():
        raise FloatingPointError(
            f"The policy's action in episode {episodes[bad][0]} at step {steps[bad][0]} is not finite; its weights "
            "probably are not either: evaluate an earlier checkpoint."
        )
