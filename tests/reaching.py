"""A task of four steps without a simulator, and run directories with policies for it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

from sorl import Policy, load_policy
from sorl.config.options import TrainConfig
from sorl.data.normalisation import Normalisation
from sorl.environments.interface import Environment, Step
from sorl.environments.serial import SerialEnvironments
from sorl.runs import run as runs
from sorl.runs.versions import record_versions
from sorl.train import loop

from . import synthetic


CUBE = "cube-single-play-singletask-task1-v0"


class Reaching(Environment):
    """Four steps long; succeeds if the first number of the last action is above a threshold drawn from the seed."""

    def __init__(self, env_name, success_timing):
        pass

    def sizes(self):
        return 2, 2

    def action_range(self):
        return np.full(2, -np.inf), np.full(2, np.inf)

    def reset(self, seed):
        self.threshold, self.taken = seed % 100 / 50 - 1, 0
        return np.array([self.threshold, 0], np.float32)

    def step(self, action) -> Step:
        self.taken += 1
        success = bool(action[0] > self.threshold)
        return np.array([self.threshold, self.taken], np.float32), float(success), success, self.taken == 4


class Seldom(Reaching):
    """Reports a success only when it succeeds: at the end of each episode while `easy`, which is the test's."""

    easy = False

    def step(self, action):
        observation, reward, _, done = super().step(action)
        return observation, reward, True if self.easy and done else None, done


class Pool(SerialEnvironments):
    """The interface of a pool of workers, in this process."""

    def __init__(self, env_name, *, workers, success_timing, step_timeout):
        del step_timeout  # nothing can be timed out in one process
        super().__init__(env_name, environments=workers, success_timing=success_timing)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


AGENT = synthetic.agent(discretization_steps=2, backprop_steps=1)


def make_run(directory, agent=AGENT, sizes=(2, 2), seeds=(3, 5), updates=0):
    """Writes a run directory with policies that were trained for `updates` updates."""
    config = TrainConfig(env=CUBE, agent=agent, seeds=seeds)
    data = synthetic.dataset(observation_size=sizes[0], action_size=sizes[1])
    state = loop.init(agent, data, seeds, batch_size=8)
    if updates:
        state = loop.run_chunk(agent, state, data, jnp.int32(updates), batch_size=8, log_interval=2, seed_mapping="map")
    runs.create(directory, config)
    record_versions(directory, config, {"source": "generated", "episodes": 9, "path": "-", "sha256": "-"})
    networks = [agent.policy(jax.tree.map(lambda leaf, i=i: leaf[i], state.agent)) for i in range(len(seeds))]
    normalisation = Normalisation.identity(*sizes)
    policies = {seed: Policy(agent.actor, own, normalisation) for seed, own in zip(seeds, networks, strict=True)}
    runs.save_policies(directory, config, policies, updates)
    return directory


def forget_environment(directory, data="logs.npz"):
    """Turns a run into one on logs alone: neither its options nor its policies name an environment any more."""
    config = json.loads((directory / "config.json").read_text())
    config["env"], config["data"]["path"], config["evaluation"]["interval"] = None, data, 0
    (directory / "config.json").write_text(json.dumps(config))
    for path in directory.glob("policy-seed-*.sorl"):
        policy = load_policy(path)
        dataclasses.replace(policy, provenance=policy.provenance | {"env": None}).save(path)
