"""Seeded episodes played by a policy at a compute budget, simulated for some while it decides for others.

The policy is one program, for a batch of a fixed number of rows, and an episode always has the same row, in whatever
company. So neither the number of environments, nor their speed, nor the way they share the episodes can change a bit of
an episode.
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
"""Rows of a batch of decisions: enough for efficient matrix products, and few enough that the last episodes do not pay
for many idle ones."""


class Moment(NamedTuple):
    """One step of some of the episodes under way."""

    episodes: Int[np.ndarray, " stepped"]
    """Their numbers."""
    slots: Int[np.ndarray, " stepped"]
    """Which environments they play in."""
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
    """Plays the episodes of an evaluation, as many at a time as there are environments, each at its own pace.

    **Arguments:** as for `evaluation.evaluate_policy`; `first`, to play only the first so many of the `episodes` (the
    same as they are among all).
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
    """Rows of the batch that decides for so many episodes: at most `MOST_ROWS`, and evenly shared."""
    return math.ceil(episodes / math.ceil(episodes / MOST_ROWS))


def episode_seeds(seed: int, episodes: int) -> Int[np.ndarray, " episodes"]:
    """The environment's seed in each episode, below 2^32; an episode's does not depend on how many there are."""
    words = [np.random.SeedSequence((seed, episode)).generate_state(1)[0] for episode in range(episodes)]
    return np.array(words, np.int64)


def compile_policy(policy: Policy, *, episodes: int) -> None:
    """Compiles what `play` decides with, unless it is compiled already."""
    batch = _Batch.of(policy, batch_rows(episodes), seed=0)
    nothing = np.arange(0)
    batch.actions(nothing, nothing, np.zeros((0, policy.observation_size), np.float32))


class _Batch(NamedTuple):
    """The program that decides, and what is the same at all its calls."""

    actor: AbstractActor
    networks: PyTree
    standardisation: Standardisation | None
    """How observations are standardised before the program, as `Policy` does it; None where the program does it."""
    normalisation: Normalisation
    """What is left to the program."""
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
        """The episodes that have waited longest for their rows, and the others; episode i has row i mod rows."""
        _, places = np.unique(ready % self.rows, return_index=True)
        return ready[places], np.delete(ready, places)

    def actions(
        self,
        episodes: Int[np.ndarray, " chosen"],
        steps: Int[np.ndarray, " chosen"],
        observations: Float[np.ndarray, "chosen observation"],
    ) -> Float[np.ndarray, "chosen chunk action"]:
        """The next actions of each episode, no two of which have the same row; a row that is not taken holds zeros."""
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
    """Episodes under way: each waits for an action (`ready`), or for the step that it takes in its environment.

    A decision's actions are carried out one after the other; an episode that ends in between needs no more of them.
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
        """Begins as many episodes as there are free environments. **Returns:** whether any is under way."""
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
        """Whether to act, rather than to wait.

        If half of the episodes are ready, the others can go on while the policy decides. Decided actions do not wait.
        """
        return len(self._ready) >= self._stepping or bool(self._decided().any())

    def act(self) -> None:
        """Sends their next action to the ready episodes that have one; if none has, decides for one of each row."""
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
        """Which of the ready episodes are within the actions of a decision."""
        return self._steps[self._ready] % self._chunk > 0

    def receive(self) -> Moment:
        """Takes in steps that are done, as many at least as make half of the episodes ready if none of them ends."""
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
    """The next actions of each row, in the environment's units; its noise is a matter of seed, episode and step."""
    episode_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, episodes)
    keys = jax.vmap(jax.random.fold_in)(episode_keys, steps)
    return decide(actor, networks, normalisation, observations, keys, budget)


def _refuse_non_finite(
    actions: Float[np.ndarray, "chosen *chunk action"],
    episodes: Int[np.ndarray, " chosen"],
    steps: Int[np.ndarray, " chosen"],
) -> None:
    # MuJoCo would reset such an episode in silence.
    bad = ~np.isfinite(actions).all(axis=tuple(range(1, actions.ndim)))
    if bad.any():
        raise FloatingPointError(
            f"The policy's action in episode {episodes[bad][0]} at step {steps[bad][0]} is not finite; its weights "
            "probably are not either: evaluate an earlier checkpoint."
        )
