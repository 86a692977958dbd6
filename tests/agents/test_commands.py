"""Every agent's training: it stops and goes on, and a seed decides every bit, alone or among others.

The command line and the library train with the same shapes here, so that each agent's programs compile once.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sorl import load_policy
from sorl.agents import AGENTS
from sorl.agents.registry import word
from sorl.config.options import read_config
from sorl.data import load_logs
from sorl.runs.metrics import read_metrics
from sorl.train import __main__ as train, loop as training

from .. import synthetic


pytestmark = pytest.mark.slow

BATCH, LOG_INTERVAL = 8, 4
every_agent = pytest.mark.parametrize("name", sorted(AGENTS))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs") / "logs.npz"
    synthetic.write_logs(path)
    return path


@every_agent
def test_the_command_line_trains_stops_and_goes_on_bit_for_bit(name, logs, tmp_path, capsys):
    common = ["--seeds", "0", "1", "--batch-size", str(BATCH), "--log-interval", str(LOG_INTERVAL)]
    common += ["--checkpoint-interval", "5", "--quiet", "--no-compilation-cache"]
    common += synthetic.tiny_options(AGENTS[name])
    start = [f"agent:{word(AGENTS[name])}", "--data", str(logs)]
    assert train.main([*start, "--run-dir", str(tmp_path / "whole"), "--updates", "12", *common]) == 0
    assert train.main([*start, "--run-dir", str(tmp_path / "parts"), "--updates", "7", *common]) == 0
    again = ["--run-dir", str(tmp_path / "parts"), "--resume", "--quiet", "--no-compilation-cache"]
    assert train.main([*again, "--updates", "12"]) == 0
    capsys.readouterr()
    agent = dataclasses.replace(synthetic.tiny(AGENTS[name]), **AGENTS[name].own_logs)
    assert read_config(tmp_path / "whole" / "config.json").agent == agent
    whole, parts = ((tmp_path / run / "metrics.jsonl").read_bytes().splitlines() for run in ("whole", "parts"))
    # The last update of the first part has a row too.
    assert [row["step"] for row in read_metrics(tmp_path / "parts")] == [4, 4, 7, 7, 8, 8, 12, 12]
    assert whole == parts[:2] + parts[4:]
    for seed in (0, 1):
        one, other = (load_policy(tmp_path / run / f"policy-seed-{seed}.sorl") for run in ("whole", "parts"))
        assert _same(_arrays(one.networks), _arrays(other.networks))
        assert one(np.full((2, 3), 50.0), key=jax.random.key(0)).shape == (2, 2)


@every_agent
def test_a_seed_decides_every_bit_alone_or_among_others(name, logs):
    grouped = _train(name, logs, [3], seeds=(3, 0))
    for index, seed in enumerate((3, 0)):
        lone = _train(name, logs, [3], seeds=(seed,))
        assert _same(_of_seed(grouped, index), _of_seed(lone, 0))
        in_parts = _train(name, logs, [1, 2], seeds=(seed,))
        assert _same(_arrays(lone.agent), _arrays(in_parts.agent))  # and whatever the chunks
    assert not _same(_of_seed(grouped, 0), _of_seed(grouped, 1))
    assert np.all(grouped.first_bad_step == -1)


@every_agent
def test_vmapped_seeds_agree_with_lone_ones_after_one_update(name, logs):
    grouped = _train(name, logs, [1], seeds=(3, 0), seed_mapping="vmap")
    for index, seed in enumerate((3, 0)):
        lone = _train(name, logs, [1], seeds=(seed,))
        for a, b in zip(_of_seed(grouped, index), _of_seed(lone, 0), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1e-3, np.abs(b).max()))


@every_agent
def test_64_bit_defaults_change_no_bit_and_strict_promotion_trains(name, logs):
    usual = _train(name, logs, [3], seeds=(3,))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        wide = _train(name, logs, [3], seeds=(3,))
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(wide)} <= {"float32", "int32", "key<fry>"}
    assert _same(_of_seed(usual, 0), _of_seed(wide, 0))


def _train(name, logs, updates, *, seeds, seed_mapping: training.SeedMapping = "map"):
    agent, dataset = synthetic.tiny(AGENTS[name]), load_logs(logs).train
    state = training.init(agent, dataset, seeds, batch_size=BATCH)
    for count in updates:
        state = training.run_chunk(
            agent,
            state,
            dataset,
            jnp.int32(count),
            batch_size=BATCH,
            log_interval=LOG_INTERVAL,
            seed_mapping=seed_mapping,
        )
    return state


def _arrays(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _of_seed(state, index) -> list[np.ndarray]:
    return [leaf[index] for leaf in _arrays((state.agent, state.metric_sums))]


def _same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
