"""Plays seeded episodes with a policy at a compute budget; some are simulated while actions of others are computed.

An episode's result depends on the policy, the budget, its seed and the number of episodes alone: neither the number nor
the speed of environments and threads, nor which of them plays or decides, changes any bit of it (see `deciding`).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from sorl.agents import Budget
from sorl.environments.interface import Outcome
from sorl.environments.pool import Environments
from sorl.evaluate.deciding import Batch, Deciders, batch_rows
from sorl.policy import Policy
from sorl.system.cores import available_cores


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
    policy = policy if budget is None else policy.with_budget(budget)
    batch = Batch.of(policy, batch_rows(episodes, policy.budget.candidates), seed)
    first = episodes if first is None else first
    with Deciders(batch, deciding_threads(environments), environments.wake) as deciders:
        rollouts = _Rollouts(environments, batch, deciders, episode_seeds(seed, episodes), first)
        try:
            while rollouts.start():
                rollouts.act()
                moment = rollouts.receive()
                if moment is not None:
                    yield moment
        finally:
            environments.abandon()


def deciding_threads(environments: Environments) -> int:
    """Number of threads that decide: half as many as cores, but none beside a simulation in this process."""
    return 0 if environments.in_this_process else max(2, available_cores() // 2)


def episode_seeds(seed: int, episodes: int) -> Int[np.ndarray, " episodes"]:
    """The environment's seed of each episode, below 2^32; it does not depend on the number of episodes."""
    words = [np.random.SeedSequence((seed, episode)).generate_state(1)[0] for episode in range(episodes)]
    return np.array(words, np.int64)


def compile_policy(policy: Policy, *, episodes: int) -> None:
    """Compiles the program that `play` uses, unless it is compiled already."""
    batch = Batch.of(policy, batch_rows(episodes, policy.budget.candidates), seed=0)
    nothing = np.arange(0)
    batch.actions(nothing, nothing, np.zeros((0, batch.observation_size), np.float32))


class _Rollouts:
    """The running episodes, each of which waits for a decision (`ready`), is being decided, or is being simulated.

    A decision's actions are executed one after the other; if the episode ends before the last one, the rest are unused.
    """

    def __init__(
        self,
        environments: Environments,
        batch: Batch,
        deciders: Deciders,
        seeds: Int[np.ndarray, " episodes"],
        play: int,
    ):
        self._environments, self._batch, self._deciders, self._seeds = environments, batch, deciders, seeds
        self._observations = np.zeros((len(seeds), batch.observation_size))
        self._steps = np.zeros(len(seeds), np.int32)
        self._chunk = batch.actions_at_once
        self._actions = np.zeros((len(seeds), self._chunk, batch.action_size), np.float32)
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
        return len(self._ready) + self._under_way > 0

    @property
    def _under_way(self) -> int:
        """Number of episodes that are being simulated or decided."""
        return self._stepping + self._deciders.episodes

    def act(self) -> None:
        """Sends all actions that are decided, and begins the decisions that are due."""
        decided = self._steps[self._ready] % self._chunk > 0  # actions that their last decision has left
        self._send(self._ready[decided])
        self._ready = self._ready[~decided]
        while len(self._ready) and self._deciders.idle:
            chosen, left = self._batch.first_of_each_row(self._ready)
            if not self._is_due(chosen):
                break
            self._ready = left
            self._deciders.begin(chosen, self._steps[chosen], self._observations[chosen])
        for episodes, actions in self._deciders.finished():
            self._actions[episodes] = actions
            self._send(episodes)

    def _is_due(self, chosen: Int[np.ndarray, " chosen"]) -> bool:
        """Whether to decide for these episodes now: a batch takes as long if it is full.

        It is due if it is full, if many others wait, or if few other episodes could still join it.
        """
        ready = len(self._ready)
        return len(chosen) == self._batch.rows or ready >= 2 * self._batch.rows or ready >= 3 * self._under_way

    def _send(self, episodes: Int[np.ndarray, " episodes"]) -> None:
        if len(episodes):
            actions = self._actions[episodes, self._steps[episodes] % self._chunk]
            self._environments.step_async(self._slot_of[episodes], actions)
            self._stepping += len(episodes)

    def receive(self) -> Moment | None:
        """Waits for finished steps or decisions. **Returns:** the steps; None if only decisions have finished."""
        if not self._stepping:
            self._deciders.wait()
            return None
        # Wait for as many steps as can make a batch due.
        ready = len(self._ready)
        least = min(self._batch.rows - ready, math.ceil((3 * self._under_way - ready) / 4), self._stepping)
        found = self._environments.step_wait(max(1, least) if self._chunk == 1 else 1)
        if found is None:
            return None
        slots, outcome = found
        episodes = self._episode_in[slots]
        self._observations[episodes] = outcome.observations
        self._steps[episodes] += 1
        self._stepping -= len(slots)
        self._free = np.append(self._free, slots[outcome.done])
        self._ready = np.append(self._ready, episodes[~outcome.done])
        return Moment(episodes, slots, outcome)
