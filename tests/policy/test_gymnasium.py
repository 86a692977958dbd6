"""A policy in Gymnasium's loops, in the words in which the pages show them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sorl import Normalisation, Policy

from .. import synthetic
from ..random_networks import make_policy


LOOP = """\
import gymnasium
import jax
import ogbench  # its environments
import sorl

policy = sorl.load_policy("policy.sorl")  # or a run directory
environment = gymnasium.make("cube-single-singletask-task1-v0")
observation, info = environment.reset(seed=0)
for key in jax.random.split(jax.random.key(0), 200):
    action = policy(observation, key=key, steps=4)
    observation, reward, terminated, truncated, info = environment.step(action)
    if terminated or truncated:
        break
"""

VECTOR_LOOP = """\
import gymnasium
import jax
import ogbench  # its environments
import sorl

policy = sorl.load_policy("policy.sorl")
environments = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("cube-single-singletask-task1-v0")] * 2)
observations, infos = environments.reset(seed=0)
for key in jax.random.split(jax.random.key(0), 20):
    actions = policy(observations, key=key, steps=4)
    observations, rewards, terminated, truncated, infos = environments.step(actions)
"""

CHECK = """
assert environment.action_space.contains(action), action
assert truncated or info["success"]
print(action.shape, observation.shape)
"""

VECTOR_CHECK = """
assert environments.action_space.contains(actions), actions
lone = [policy(observation, key=key, noise_scale=0.0) for observation in observations]
assert abs(policy(observations, key=key, noise_scale=0.0) - lone).max() < 1e-5
print(actions.shape, observations.shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "code, check, printed",
    [(LOOP, CHECK, "(5,) (28,)\n"), (VECTOR_LOOP, VECTOR_CHECK, "(2, 5) (2, 28)\n")],
    ids=["one", "vector"],
)
def test_the_loop_runs(code, check, printed, tmp_path):
    agent = synthetic.agent()
    networks = make_policy(agent, 28, 5, seed=0, scale=0.2)
    Policy(agent.actor, networks, Normalisation.identity(28, 5)).save(tmp_path / "policy.sorl")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code + check], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


@pytest.mark.parametrize("code", [LOOP, VECTOR_LOOP])
def test_it_is_short(code):
    assert len(code.splitlines()) < 15


def test_the_page_about_deployment_shows_this_loop():
    assert LOOP in (Path(__file__).parents[2] / "docs/deploy.md").read_text()
