"""A policy loads and acts where neither simulator nor optimiser is installed."""

import jax
import numpy as np
import pytest

from sorl import Normalisation, Policy
from sorl.agents import AGENTS

from .alone import run_alone
from .random_networks import make_policy


ACT = """
import jax
import numpy as np
import sorl

policy = sorl.load_policy("policy.sorl")
actions = [
    policy(np.load("observations.npy"), key=jax.random.key(1), steps=4, candidates=8),
    policy(np.load("observations.npy")[0], key=jax.random.key(1), budget=sorl.Budget(2, 1)),
]
np.savez("actions.npz", *actions)
"""


@pytest.mark.parametrize("agent", AGENTS.values(), ids=lambda agent: agent.__name__)
def test_loads_and_acts_with_jax_equinox_jaxtyping_and_numpy_alone(agent, tmp_path):
    agent = agent(hidden_sizes=(16, 16), critic_hidden_sizes=(16, 16))
    networks = make_policy(agent, 3, 2, seed=0, scale=0.2)
    policy = Policy(agent, networks, Normalisation.identity(3, 2))
    policy.save(tmp_path / "policy.sorl")
    observations = np.random.default_rng(0).normal(size=(5, 3))
    np.save(tmp_path / "observations.npy", observations)
    run_alone(ACT, ("sorl", "jax", "equinox", "jaxtyping", "numpy"), tmp_path)
    actions = np.load(tmp_path / "actions.npz")
    key = jax.random.key(1)
    np.testing.assert_array_equal(actions["arr_0"], policy(observations, key=key, steps=4, candidates=8))
    np.testing.assert_array_equal(actions["arr_1"], policy(observations[0], key=key, steps=2))


@pytest.mark.parametrize("package", ["optax", "mujoco", "tyro", "beartype", "sorl"])
def test_what_is_blocked_cannot_be_imported(package, tmp_path):
    code = f"""
try:
    import {package}
except ImportError:
    print("blocked")
"""
    assert run_alone(code, ("numpy",), tmp_path) == "blocked\n"
