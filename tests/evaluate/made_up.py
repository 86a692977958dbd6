"""Actors and environments that are made up, so that a test knows what they do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sorl import Policy
from sorl.agents import AbstractActor, Budget, Budgets
from sorl.data.normalisation import Normalisation
from sorl.environments.interface import Environment


CUBE = "cube-single-play-singletask-task1-v0"


GOAL = jnp.array([0.425, -0.1, 0.02])  # of this task, in metres


class AbstractMadeUp(AbstractActor):
    """An actor without a template, of any budget."""

    @property
    def budgets(self):
        return Budgets(Budget(), (1, 2, 4, 8), (1, 8), (1,), other_inference_steps=True, other_candidates=True)

    def template(self, observation_size, action_size):
        raise NotImplementedError

    def draw_action(self, action_size, budget, *, key):
        return budget.noise_scale * jax.random.normal(key, (action_size,))


class PickAndPlace(AbstractMadeUp):
    """Feedback that carries the cube to its goal, unless noise gets in the way."""

    noise: float = 0.3

    def act(self, networks: Float[jax.Array, "3"], observation, draws, budget):
        hand, cube = observation[12:15] / 10 + networks, observation[19:22] / 10 + networks
        to_cube, to_goal = cube - hand, GOAL - cube
        near = jnp.linalg.norm(to_cube[:2]) < 0.02
        holding = near & (jnp.abs(to_cube[2]) < 0.02) & (observation[18] > 0.3)
        hover = jnp.where(jnp.linalg.norm(to_cube[:2]) < 0.01, 0.0, 0.1)
        lift = jnp.where(jnp.linalg.norm(to_goal[:2]) > 0.03, 0.1, 0.0)
        move = jnp.where(holding, to_goal.at[2].add(lift), to_cube.at[2].add(hover)) / 0.05
        turn = jnp.arctan2(observation[27], observation[26]) - jnp.arctan2(observation[16], observation[15])
        turn = jnp.where(holding, 0.0, (turn + jnp.pi / 4) % (jnp.pi / 2) - jnp.pi / 4) / 0.3
        grip = jnp.where(holding | (near & (jnp.abs(to_cube[2]) < 0.01)), 1.0, -1.0)
        return jnp.clip(jnp.concatenate([move, turn[None], grip[None]]) + self.noise * draws, -1, 1)


CENTRE = jnp.array([0.425, 0.0, 0.0])  # of the cube's observations


ECHO_TRACES = []


class Echo(AbstractMadeUp):
    """Acts on the first number it sees, so that a scripted environment can tell what the policy was shown."""

    scale: float = 1.0

    def act(self, networks, observation, draws, budget):
        ECHO_TRACES.append(budget)
        return jnp.stack([self.scale * observation[0], draws[1]])


class Scripted(Environment):
    """An episode of 2 + seed % 5 steps that shows (seed % 100, step) and succeeds at its last step if seed is even."""

    def __init__(self, env_name, success_timing):
        self.actions = []

    def sizes(self):
        return 2, 2

    def action_range(self):
        return np.full(2, -np.inf), np.full(2, np.inf)

    def reset(self, seed):
        self.seed, self.taken = seed, 0
        return np.array([seed % 100, 0], np.float32)

    def step(self, action):
        self.taken += 1
        last = self.taken == 2 + self.seed % 5
        success = (self.seed % 2 == 0) == last  # that of earlier steps does not count
        return np.array([self.seed % 100, self.taken], np.float32), float(action[0]), success, last


def identity(observation_size=28, action_size=5):
    return Normalisation.identity(observation_size, action_size)


def echo(scale: Any = 1.0, normalisation=None):
    return Policy(Echo(scale), jnp.zeros(0), normalisation or identity(2, 2))


def hand():
    return Policy(PickAndPlace(), CENTRE, identity())
