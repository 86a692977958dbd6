"""The summary of a data set."""

import json

import numpy as np
import pytest

from sorl.data import load_logs, summary
from sorl.data.columns import columns


def _summary(**changes):
    """Two episodes, of two and three steps; the first one ended, the second was cut."""
    observations = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]])
    arguments = {
        "observations": columns(observations),
        "actions": columns(np.array([[-1.0], [2.0], [0.0], [0.0], [0.5]])),
        "rewards": np.array([1.0, 2.0, -3.0, 0.0, -4.0]),
        "ends": np.array([False, True, False, False, True]),
        "terminated": np.array([False, True, False, False, False]),
        "transitions": 4,
        **changes,
    }
    return summary.summarise(**arguments)


def test_the_numbers():
    found = _summary(validation={"episodes": 1, "transitions": 7}, unused_keys=["qpos"])
    assert found == {
        "episodes": 2,
        "terminations": 1,
        "cuts": 1,
        "rows": 5,
        "transitions": 4,
        "length_min": 2,
        "length_median": 2.5,
        "length_max": 3,
        "reward_min": -4.0,
        "reward_mean": -0.8,
        "reward_max": 2.0,
        "return_min": -7.0,
        "return_mean": -2.0,
        "return_max": 3.0,
        "observation_size": 2,
        "action_size": 1,
        "actions": [[-1.0, 2.0]],
        "constant": ["observations[1]"],
        "nearly_constant": [],
        "unusual_scale": {},
        "unused_keys": ["qpos"],
        "notes": [],
        "validation": {"episodes": 1, "transitions": 7},
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_terminations_within_an_episode_are_told():
    text = summary.text(_summary(terminated=np.array([True, True, True, False, False])))
    assert "  episodes   2: 1 ended, 1 cut, 3 rows terminate, some within an episode; 4 transitions" in text


def test_the_lines():
    found = _summary(validation={"episodes": 1, "transitions": 1200}, unused_keys=["qpos"])
    assert summary.text(found).splitlines() == [
        "Data to train on:",
        "  episodes   2: 1 ended, 1 cut; 4 transitions",
        "  length     2 to 3, median 2.5 steps",
        "  rewards    -4 to 2, mean -0.8",
        "  returns    -7 to 3, mean -2 per episode",
        "  actions    -1..2",
        "  constant   observations[1]",
        "  not used   qpos",
        "  held out   1 episode, 1,200 transitions",
    ]


def test_long_lines_end_at_a_whole_name():
    random = np.random.default_rng(0)
    wide = columns(np.zeros((5, 60)))
    text = summary.text(_summary(observations=wide, actions=columns(random.normal(size=(5, 30)))))
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[6].endswith("observations[3], ..")
    text = summary.text(_summary(unused_keys=["k" * 300]))
    assert text.splitlines()[-2] == f"  not used   {'k' * 84} .."


@pytest.mark.parametrize(
    "column, kind",
    [
        (1.7e9 + np.arange(1000.0), "nearly_constant"),  # beside its magnitude
        (1e-5 * np.sin(np.arange(1000.0)), "nearly_constant"),  # beside its neighbours
        (1e8 * np.sin(np.arange(1000.0)), "unusual_scale"),
        (1e-8 * np.sin(np.arange(1000.0)), "unusual_scale"),
        (np.full(1000, -3.0), "constant"),
    ],
)
def test_remarkable_columns_are_named(column, kind):
    random = np.random.default_rng(0)
    observations = np.stack([*random.normal(size=(3, 1000)), column], axis=1)
    found = _summary(observations=columns(observations))
    assert "observations[3]" in found[kind]
    assert sum("observations[0]" in found[name] for name in ("constant", "nearly_constant", "unusual_scale")) == 0


def test_own_logs_carry_it(tmp_path):
    np.savez(
        tmp_path / "log.npz",
        observations=np.arange(40.0)[:, None],
        actions=np.sin(np.arange(40.0))[:, None],
        rewards=np.tile([0.0, 1.0], 20),
        terminals=np.arange(40) % 20 == 9,
        timeouts=np.arange(40) % 20 == 19,
    )
    found = load_logs(tmp_path / "log.npz", validation_fraction=0.25).provenance["summary"]
    assert (found["episodes"], found["terminations"] + found["cuts"]) == (3, 3)
    assert found["validation"]["episodes"] == 1
    assert (found["return_min"], found["return_max"], found["reward_max"]) == (5.0, 5.0, 1.0)
