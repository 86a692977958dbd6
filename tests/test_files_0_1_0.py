"""Files written by version 0.1.0 still load, act and resume as they did."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import Budget, load_policy
from sorl.agents import AGENTS
from sorl.agents.budget import of_today
from sorl.config.json_form import budget_from_json, to_json
from sorl.config.options import read_config
from sorl.data import load_logs
from sorl.data.loaded import LoadedData, to_device
from sorl.data.normalisation import Normalisation
from sorl.train import __main__ as train, loop as training
from sorl.train.checkpoints import Checkpoints


FILES = Path(__file__).parent / "files_0_1_0"
"""Made once by version 0.1.0, never to be made again.

Each archive is a run directory, of 20 updates of an agent with networks of two layers of 8 units and two to four steps,
on `logs.npz` (10 trajectories of 20 random rows, a fifth held out): `Idql` and `Srpo`, whose optimisers would need
most of the space, were stopped by a signal before the first update. `Sorl-ogbench` was trained on the rows of
`pointmaze.npz` in identity units, as OGBench's are. `actions.npz` holds the observations, and what each policy did with
key 7 at every budget (`acts`), and at its own after ten updates more (`resumed`).
"""
RUNS = sorted(path.name.removesuffix(".tar.xz") for path in FILES.glob("*.tar.xz"))
ACTIONS = np.load(FILES / "actions.npz")

# Fields that the file lacks, because they are younger, are named in a warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The run directories, by name, as if trained on the logs where they now are."""
    place = tmp_path_factory.mktemp("runs")
    for name in RUNS:
        with tarfile.open(FILES / f"{name}.tar.xz") as archive:
            archive.extractall(place, filter="data")
        config = place / name / "config.json"
        config.write_text(config.read_text().replace("/home/ada/robot/logs.npz", str(FILES / "logs.npz")))
    return place


def _data(name: str) -> LoadedData:
    if name != "Sorl-ogbench":
        return load_logs(FILES / "logs.npz", validation_fraction=0.2)
    with np.load(FILES / "pointmaze.npz") as rows:
        train_set = to_device(rows["observations"], rows["actions"], rows["rewards"], rows["masks"], ~rows["terminals"])
    return LoadedData(train_set, None, Normalisation.identity(2, 2), {})


def _recorded(kind: str, name: str, file: str) -> dict[Budget, np.ndarray]:
    prefix = f"{kind}/{name}/{file}/"
    found = [(key.removeprefix(prefix), ACTIONS[key]) for key in ACTIONS.files if key.startswith(prefix)]
    assert found
    return {_budget(json.loads(budget)): actions for budget, actions in found}


def _budget(written: dict[str, Any]) -> Budget:
    """As version 0.1.0 wrote it, without the fields that had their defaults."""
    return budget_from_json(to_json(Budget()) | of_today(written), "the recording")


def _assert_acts_as(policy, expected: dict[Budget, np.ndarray], *, rtol: float, atol: float) -> None:
    observations = ACTIONS[f"observations/{'ogbench' if policy.observation_size == 2 else 'logs'}"]
    scale = np.asarray(policy.normalisation.action_high - policy.normalisation.action_low) / 2
    for budget, actions in expected.items():
        found = policy(observations, key=jax.random.key(7), budget=budget)
        np.testing.assert_allclose(found / scale, actions / scale, rtol=rtol, atol=atol, err_msg=budget.name)


def test_every_agent_of_that_version_is_there():
    assert RUNS == sorted([*AGENTS.keys() - {"SorlPlus"}, "Sorl-ogbench"])


@pytest.mark.parametrize("name", RUNS)
def test_policies_act_as_they_did(unpacked, name):
    paths = sorted((unpacked / name).glob("policy-seed-*.sorl"))
    assert len(paths) == (2 if name in ("Fql", "Sorl") else 1)
    for path in paths:
        policy = load_policy(path)
        assert policy.provenance["versions"]["sorl"] == "0.1.0"
        assert policy.algorithm == name.removesuffix("-ogbench")
        _assert_acts_as(policy, _recorded("acts", name, path.name), rtol=1e-5, atol=1e-6)


def test_units_of_ogbench_change_nothing(unpacked):
    policy = load_policy(unpacked / "Sorl-ogbench")
    raw = jnp.asarray(np.random.default_rng(0).normal(0, 20, (5, 2)), jnp.float32)
    np.testing.assert_array_equal(policy.normalisation.observation(raw), raw)
    np.testing.assert_array_equal(policy.normalisation.environment_action(raw), raw)


@pytest.mark.parametrize("name", RUNS)
def test_options_are_read(unpacked, name):
    path = unpacked / name / "config.json"
    config, written = read_config(path), json.loads(path.read_text())
    assert _without_younger_fields(to_json(config), written) == written
    policy = load_policy(path.parent)
    assert policy.actor == config.agent.actor and policy.provenance["agent"] == written["agent"]


def _without_younger_fields(now, then):
    """A newer version's description of an object, without the fields that the older version lacked."""
    if not isinstance(then, dict):
        return now
    return {name: _without_younger_fields(now[name], value) for name, value in then.items()}


@pytest.mark.parametrize("name", RUNS)
def test_checkpoints_are_the_states_that_the_policies_are_of(unpacked, name):
    config = read_config(unpacked / name / "config.json")
    data = _data(name).train
    template = jax.eval_shape(lambda: training.init(config.agent, data, config.seeds, batch_size=config.batch_size))
    with Checkpoints(unpacked / name / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(template)
    assert int(state.step) == (0 if name in ("Idql", "Srpo") else 20)
    networks = config.agent.policy(state.agent)
    for index, seed in enumerate(config.seeds):
        stored = load_policy(unpacked / name, seed).networks
        for all_seeds, own in zip(jax.tree.leaves(networks), jax.tree.leaves(stored), strict=True):
            np.testing.assert_array_equal(all_seeds[index], own)


@pytest.mark.parametrize("name", ["Sorl", "Fql", "Iql"])
def test_runs_resume_as_they_did(unpacked, tmp_path, name):
    directory = shutil.copytree(unpacked / name, tmp_path / name)
    rows = (directory / "metrics.jsonl").read_text()
    assert train.main(["--run-dir", str(directory), "--resume", "--updates", "30", "--quiet"]) == 0
    assert (directory / "metrics.jsonl").read_text().startswith(rows)
    for path in directory.glob("policy-seed-*.sorl"):
        policy = load_policy(path)
        assert policy.provenance["step"] == 30
        # Adam's quotients of tiny moments make rounding larger.
        _assert_acts_as(policy, _recorded("resumed", name, path.name), rtol=1e-3, atol=1e-4)
