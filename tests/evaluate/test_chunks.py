"""Chunks of actions are carried out open loop in evaluations."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Policy
from sorl.agents.actors import AbstractActor
from sorl.agents.budget import ONE_PASS
from sorl.data.normalisation import Normalisation
from sorl.environments import named
from sorl.environments.interface import Environment
from sorl.environments.serial import SerialEnvironments
from sorl.evaluate import deciding, episodes as rollouts


CHUNK = 3


class Counting(AbstractActor):
    """Each action says at which step it was decided and its place in the chunk, and holds the decision's noise."""

    chunk: int = eqx.field(static=True, default=CHUNK)
    scale: float = 1.0
    """Of all actions."""

    @property
    def budgets(self):
        return ONE_PASS

    def template(self, observation_size, action_size):
        return ()

    def draw_action(self, action_size, budget, *, key):
        assert action_size == 3 * self.chunk
        return jax.random.normal(key)

    def act(self, networks, observation, draws, budget):
        place = jnp.arange(self.chunk, dtype=jnp.float32)
        actions = [jnp.full_like(place, observation[1]), place, jnp.full_like(place, draws)]
        return self.scale * jnp.stack(actions, axis=1).reshape(-1)


class Echoing(Environment):
    """An episode of 2 + seed % 5 steps that shows (seed, step) and what it was sent."""

    def __init__(self, env_name, success_timing):
        pass

    def sizes(self):
        return 5, 3

    def action_range(self):
        return np.full(3, -np.inf), np.full(3, np.inf)

    def reset(self, seed):
        self.seed, self.taken = seed, 0
        return np.array([seed, 0, 0, 0, 0], np.float32)

    def step(self, action):
        self.taken += 1
        seen = np.array([self.seed, self.taken, *action], np.float32)
        return seen, 0.0, False, self.taken == 2 + self.seed % 5


def _played(side_by_side: int, scale: Any = 1.0) -> dict[int, np.ndarray]:
    """What each of 7 episodes was sent, step by step."""
    sent: dict[int, list[Any]] = {}
    moments = rollouts.play(
        Policy(Counting(scale=scale), (), Normalisation.identity(5, 3), {}),
        SerialEnvironments("cube-single-play-singletask-task1-v0", environments=side_by_side),
        episodes=7,
        seed=3,
    )
    for moment in moments:
        for episode, observation in zip(moment.episodes, moment.outcome.observations, strict=True):
            sent.setdefault(int(episode), []).append(observation[2:])
    return {episode: np.stack(sent[episode]) for episode in sorted(sent)}


@pytest.mark.parametrize("side_by_side", [1, 3, 7])
def test_a_new_decision_is_made_at_every_third_step_of_an_episode(monkeypatch, side_by_side):
    monkeypatch.setattr(named, "OgbenchEnvironment", Echoing)
    monkeypatch.setattr(deciding, "MOST_ROWS", 2)  # so that episodes share rows
    sent = _played(side_by_side)
    seeds = rollouts.episode_seeds(3, 7)
    assert [len(actions) for actions in sent.values()] == (2 + seeds % 5).tolist()
    assert len({len(actions) for actions in sent.values()}) > 2  # some episodes end within a chunk
    for episode, actions in sent.items():
        for step, (decided_at, place, noise) in enumerate(actions):
            assert (decided_at, place) == (step - step % CHUNK, step % CHUNK)
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), episode), step - step % CHUNK)
            assert noise == jax.random.normal(key)


def test_an_action_that_is_not_finite_is_refused(monkeypatch):
    monkeypatch.setattr(named, "OgbenchEnvironment", Echoing)
    with pytest.raises(FloatingPointError, match="in episode 0 at step 0 is not finite"):
        _played(1, scale=jnp.array(jnp.inf))
