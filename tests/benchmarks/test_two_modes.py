"""The benchmark of two modes counts what it says, runs for an agent, and has settings for every one."""

import importlib.util
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from sorl.agents import AGENTS
from sorl.data.transitions import Window


@pytest.fixture(scope="module")
def two_modes():
    path = Path(__file__).parents[2] / "benchmarks" / "two_modes.py"
    specification = importlib.util.spec_from_file_location("two_modes", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["two_modes"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    yield module
    del sys.modules["two_modes"]


def test_every_agent_has_settings_that_make_it(two_modes):
    assert two_modes.CASES.keys() >= AGENTS.keys()
    for name, agent in AGENTS.items():
        case = two_modes.CASES[name]
        for fields in filter(None, (case.cloning, case.values)):
            agent(**fields)


def test_rewards_and_shares_at_hand_made_actions(two_modes):
    worse, better = two_modes.MODES
    # At a centre its own height, and of the other's bump exp(-(sqrt(2) / 0.3)^2 / 2) = 1.5e-5.
    np.testing.assert_allclose(two_modes.reward(np.array([worse, better])), [0.5, 1.0], atol=2e-5)
    one_deviation = better + np.array([0.3, 0.0])
    assert two_modes.reward(one_deviation[None])[0] == pytest.approx(np.exp(-0.5), abs=1e-4)
    near = better + np.array([0.0, 0.29])
    far = better + np.array([0.0, 0.31])
    actions = np.array([worse, worse, near, far, 0 * worse, better, better, better, near, worse])
    judged = two_modes.judge(actions, "clone")
    assert (judged["worse_share"], judged["better_share"]) == (0.3, 0.5)
    assert judged["verdict"] == "loses a mode"
    assert two_modes.judge(actions, "use values")["verdict"] == "misses the better mode"
    assert two_modes.judge(np.array([worse, better]), "clone")["verdict"] == "keeps both modes"
    assert two_modes.judge(np.array([better] * 9 + [worse]), "use values")["verdict"] == "finds the better mode"


def test_the_logged_actions_have_both_modes_and_end_their_episodes(two_modes):
    dataset = two_modes.bandit(5000, 0)
    batch = dataset.take(jnp.arange(5000), Window(), 0.99)
    judged = two_modes.judge(np.asarray(batch.action), "clone")
    assert judged["worse_share"] == pytest.approx(0.49, abs=0.03)
    assert judged["better_share"] == pytest.approx(0.49, abs=0.03)
    np.testing.assert_allclose(batch.reward, two_modes.reward(np.asarray(batch.action)), atol=1e-5)
    assert not batch.discount.any()


def test_rows_table_and_picture(two_modes, tmp_path, capsys):
    config = two_modes.Config(agents=("Fql",), updates=2, width=8, layers=1, batch_size=8, rows=50, out=tmp_path / "t")
    rows = two_modes.main(config)
    assert [(row["agent"], row["aim"]) for row in rows] == [("Fql", "clone"), ("Fql", "use values")]
    assert json.loads((tmp_path / "t.json").read_text())["rows"] == rows
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert "verdict" in capsys.readouterr().out


@pytest.mark.parametrize("fields", [{"agents": ("Dreamer",)}, {"samples": 100}])
def test_what_says_nothing_is_refused(two_modes, fields):
    with pytest.raises(ValueError, match="give"):
        two_modes.Config(**fields)
