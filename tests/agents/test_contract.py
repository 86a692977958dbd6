"""The contract: what every registered agent promises, whatever its algorithm. Each test runs for all of them.

`pytest tests/agents/test_contract.py --agent-module my_agents.py` tests agents of your own too. Runs of the command
line and of the library have the same shapes, so that each agent's programs compile once.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import load_exported, load_policy
from sorl.agents import AGENTS
from sorl.agents.registry import word
from sorl.agents.shared.metrics import UNDESCRIBED, described
from sorl.config.json_form import from_json, to_json
from sorl.config.options import read_config
from sorl.data import load_logs
from sorl.policy.stablehlo import save_exported
from sorl.runs.metrics import read_metrics
from sorl.train import __main__ as train, loop
from sorl.train.validation import validation_losses

from .. import synthetic
from ..bits import arrays, equal


pytestmark = pytest.mark.slow

BATCH, LOG_INTERVAL = 8, 4
OBSERVATIONS = np.random.default_rng(0).normal(50.0, 5.0, (4, 3))
every_agent = pytest.mark.parametrize("name", list(AGENTS))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs") / "logs.npz"
    synthetic.write_logs(path)
    return path


@pytest.fixture(scope="module")
def runs(logs, tmp_path_factory):
    """By the name of an agent, a run in one part and one that was stopped and resumed; each is made once."""
    place = tmp_path_factory.mktemp("runs")

    @functools.cache
    def make(name: str) -> tuple[Path, Path]:
        whole, parts = place / f"{name}-whole", place / f"{name}-parts"
        common = ["--seeds", "3", "0", "--batch-size", str(BATCH), "--log-interval", str(LOG_INTERVAL)]
        common += ["--checkpoint-interval", "5", "--quiet", "--no-compilation-cache"]
        common += synthetic.tiny_options(AGENTS[name])
        start = [f"agent:{word(AGENTS[name])}", "--data", str(logs)]
        assert train.main([*start, "--run-dir", str(whole), "--updates", "12", *common]) == 0
        assert train.main([*start, "--run-dir", str(parts), "--updates", "7", *common]) == 0
        again = ["--run-dir", str(parts), "--resume", "--quiet", "--no-compilation-cache"]
        assert train.main([*again, "--updates", "12"]) == 0
        return whole, parts

    return make


@every_agent
def test_its_description_is_whole(name):
    agent, dataset = synthetic.tiny(AGENTS[name]), synthetic.dataset()
    state = jax.eval_shape(lambda: loop.init(agent, dataset, (0,), batch_size=BATCH))
    held_out = jax.eval_shape(lambda s: validation_losses(agent, s, dataset, batch_size=BATCH), state)
    assert [m for m in state.metric_sums if described(agent.metric_descriptions, m) == UNDESCRIBED] == []
    assert held_out.keys() <= state.metric_sums.keys()
    assert {m for m in state.metric_sums if m.endswith("_loss")} == {m for m in held_out if m.endswith("_loss")}
    documented = AGENTS[name].__doc__ or ""
    assert documented and from_json(AGENTS[name], _fields(agent), "here") == agent
    if AGENTS[name].__module__.startswith("sorl."):  # the package's own docstrings name every metric
        assert [metric for metric in state.metric_sums if f"`{metric}`" not in documented] == []


@every_agent
def test_its_fresh_state_can_be_donated_and_has_the_actors_networks(name):
    agent: Any = synthetic.tiny(AGENTS[name])
    state = jax.jit(lambda key: agent.init(3, 2, key=key))(jax.random.key(0))
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    networks, template = agent.policy(state), agent.actor.template(3, 2)
    assert jax.tree.structure(networks) == jax.tree.structure(template)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(networks)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(template)
    ]


@every_agent
def test_a_run_that_was_resumed_is_the_straight_run_bit_for_bit(name, runs, capsys):
    whole, parts = runs(name)
    capsys.readouterr()
    rows, in_parts = ((run / "metrics.jsonl").read_bytes().splitlines() for run in (whole, parts))
    # The last update of the first part has a row too.
    assert [row["step"] for row in read_metrics(parts)] == [4, 4, 7, 7, 8, 8, 12, 12]
    assert rows == in_parts[:2] + in_parts[4:]
    assert all(math.isfinite(value) for row in read_metrics(whole) for value in row.values())
    assert read_config(whole / "config.json").agent == _of_runs(name)
    for seed in (3, 0):
        one, other = (load_policy(run / f"policy-seed-{seed}.sorl") for run in (whole, parts))
        assert equal(one.networks, other.networks)


@every_agent
def test_its_policy_acts_at_every_budget_and_alike_when_it_was_saved(name, runs, tmp_path):
    policy = load_policy(runs(name)[0], 3)
    policy.save(tmp_path / "policy.sorl")
    loaded, key = load_policy(tmp_path / "policy.sorl"), jax.random.key(1)
    own = AGENTS[name]().actor.budgets
    assert own.usual.inference_steps in own.inference_steps and own.usual.candidates in own.candidates
    own = synthetic.tiny(AGENTS[name]).actor.budgets
    budgets = [*own.grid(None, None, final=True), dataclasses.replace(own.usual, noise_scale=0.0)]
    for field, allowed in (("inference_steps", own.other_inference_steps), ("candidates", own.other_candidates)):
        odd = dataclasses.replace(own.usual, **{field: 3 if 3 not in getattr(own, field) else 5})
        if allowed:
            budgets.append(odd)
        else:
            with pytest.raises(ValueError, match="cannot act with"):
                policy(OBSERVATIONS, key=key, budget=odd)
    for budget in budgets:
        actions = policy(OBSERVATIONS, key=key, budget=budget)
        np.testing.assert_array_equal(loaded(OBSERVATIONS, key=key, budget=budget), actions)
        assert actions.shape == (4, 2) and np.all((-1e-3 < actions) & (actions < 10 + 1e-3))  # the units of the logs


@every_agent
def test_its_exported_program_acts_as_the_policy(name, runs, tmp_path):
    policy = load_policy(runs(name)[0], 3)
    save_exported(policy, tmp_path / "policy.stablehlo", ("cpu",))
    program = load_exported(tmp_path / "policy.stablehlo")
    noise = np.zeros((4, *program.noise_shape), np.float32)
    actions = np.asarray(program(OBSERVATIONS.astype(np.float32), noise))
    silent = policy(OBSERVATIONS, key=jax.random.key(0), noise_scale=0.0)
    np.testing.assert_allclose(actions, silent, rtol=1e-4, atol=1e-3)


@every_agent
def test_a_seed_decides_every_bit_alone_in_other_chunks_and_whatever_jaxs_defaults(name, logs):
    grouped = _train(name, logs, [3], seeds=(3, 0))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        lone = _train(name, logs, [1, 2], seeds=(3,))
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(lone)} <= {"float32", "int32", "key<fry>"}
    assert equal(_of_seed(grouped, 0), _of_seed(lone, 0))
    assert not equal(_of_seed(grouped, 0), _of_seed(grouped, 1))
    assert np.all(grouped.first_bad_step == -1)


@every_agent
def test_vmapped_seeds_agree_with_mapped_ones_after_one_update(name, logs):
    vmapped = _train(name, logs, [1], seeds=(3, 0), seed_mapping="vmap")
    mapped = _train(name, logs, [1], seeds=(3, 0))
    for a, b in zip(arrays(vmapped.agent), arrays(mapped.agent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1e-3, np.abs(b).max()))


def _of_runs(name) -> Any:
    """The agent that the command line makes for logs, whose programs the tests of the library share."""
    return dataclasses.replace(synthetic.tiny(AGENTS[name]), **AGENTS[name].own_logs)


def _train(name, logs, updates, *, seeds, seed_mapping: loop.SeedMapping = "map"):
    agent, dataset = _of_runs(name), load_logs(logs).train
    state = loop.init(agent, dataset, seeds, batch_size=BATCH)
    sizes: dict[str, Any] = {"batch_size": BATCH, "log_interval": LOG_INTERVAL, "seed_mapping": seed_mapping}
    for count in updates:
        state = loop.run_chunk(agent, state, dataset, jnp.int32(count), **sizes)
    return state


def _fields(agent) -> dict[str, Any]:
    return {name: value for name, value in to_json(agent).items() if name != "type"}


def _of_seed(state, index) -> list[np.ndarray]:
    return [leaf[index] for leaf in arrays((state.agent, state.metric_sums))]
