"""A policy loads and acts where neither simulator nor optimiser is installed."""

import jax
import numpy as np
import pytest

from sorl import Normalisation, Policy
from sorl.agents import AGENTS

from .. import synthetic
from ..alone import run_alone
from ..random_networks import make_policy


ACT = """
from pathlib import Path
import jax
import numpy as np
import sorl

observations, key = np.load("observations.npy"), jax.random.key(1)
paths = sorted(Path().glob("*.sorl"))
actions = {path.stem: sorl.load_policy(path)(observations, key=key) for path in paths}
actions["one"] = sorl.load_policy("Sorl.sorl")(observations[0], key=key, budget=sorl.Budget(2, 8))
np.savez("actions.npz", **actions)
"""


@pytest.mark.slow
def test_every_agent_loads_and_acts_with_jax_equinox_jaxtyping_and_numpy_alone(tmp_path):
    observations, key = np.random.default_rng(0).normal(size=(5, 3)), jax.random.key(1)
    np.save(tmp_path / "observations.npy", observations)
    expected = {}
    for name, agent_class in AGENTS.items():
        agent = synthetic.tiny(agent_class)
        policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0, scale=0.2), Normalisation.identity(3, 2))
        policy.save(tmp_path / f"{name}.sorl")
        expected[name] = policy(observations, key=key)
        if name == "Sorl":
            expected["one"] = policy(observations[0], key=key, steps=2, candidates=8)
    run_alone(ACT, ("sorl", "jax", "equinox", "jaxtyping", "numpy"), tmp_path)
    actions = np.load(tmp_path / "actions.npz")
    assert sorted(actions) == sorted(expected)
    for name, action in expected.items():
        np.testing.assert_array_equal(actions[name], action)


@pytest.mark.parametrize("package", ["optax", "mujoco", "tyro", "beartype", "sorl"])
def test_what_is_blocked_cannot_be_imported(package, tmp_path):
    code = f"""
try:
    import {package}
except ImportError:
    print("blocked")
"""
    assert run_alone(code, ("numpy",), tmp_path) == "blocked\n"
