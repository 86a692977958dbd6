"""JAX_ENABLE_X64 changes nothing: files load, and policies act in single precision from the same draws."""

import os
import subprocess
import sys

import jax
import numpy as np

from sorl import Normalisation, Policy, load_policy
from sorl.agents import AGENTS

from .. import synthetic
from ..random_networks import make_policy


ACT = """
import pathlib

import jax
import numpy as np

from sorl import Policy, load_policy

assert jax.config.jax_enable_x64
observations = np.load("observations.npy")
actions = {}
for path in pathlib.Path().glob("*.sorl"):
    policy = load_policy(path)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(policy.networks)} == {"float32"}
    candidates = 3 if policy.actor.budgets.other_candidates else 1
    found = policy(observations, key=jax.random.key(1), candidates=candidates)
    assert found.dtype == np.float32
    actions[f"{path.stem} {candidates}"] = found
np.savez("actions.npz", **actions)
"""


def test_policies_act_the_same_under_x64(tmp_path):
    observations = np.random.default_rng(0).normal(size=(4, 3))
    np.save(tmp_path / "observations.npy", observations)
    for name, agent_class in AGENTS.items():
        agent = synthetic.tiny(agent_class)
        policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0, scale=0.2), Normalisation.identity(3, 2))
        policy.save(tmp_path / f"{name}.sorl")
    environment = os.environ | {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run([sys.executable, "-c", ACT], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "actions.npz")
    assert len(found.files) == len(AGENTS)
    for name in found.files:
        file, candidates = name.split()
        expected = load_policy(tmp_path / f"{file}.sorl")(
            observations, key=jax.random.key(1), candidates=int(candidates)
        )
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-6, err_msg=name)
