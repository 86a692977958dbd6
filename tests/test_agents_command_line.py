"""Every agent on the command line: it trains, stops, goes on, and leaves a policy behind."""

import jax
import numpy as np
import pytest

from sorl import load_policy, train
from sorl.agents import AGENTS
from sorl.config import read_config
from sorl.logs import read_metrics

from . import synthetic


pytestmark = pytest.mark.slow


def _arrays(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_the_command_line_trains_stops_and_goes_on_bit_for_bit(name, tmp_path, capsys):
    synthetic.write_logs(tmp_path / "logs.npz")
    common = ["--seeds", "0", "1", "--batch-size", "8", "--quiet", "--no-compilation-cache", "--log-interval", "4"]
    common += ["--checkpoint-interval", "5", *synthetic.tiny_options(AGENTS[name])]
    start = [f"agent:{train.dashed(name)}", "--data", str(tmp_path / "logs.npz")]
    assert train.main([*start, "--run-dir", str(tmp_path / "whole"), "--updates", "12", *common]) == 0
    assert train.main([*start, "--run-dir", str(tmp_path / "parts"), "--updates", "7", *common]) == 0
    again = ["--run-dir", str(tmp_path / "parts"), "--resume", "--quiet", "--no-compilation-cache"]
    assert train.main([*again, "--updates", "12"]) == 0
    capsys.readouterr()
    assert read_config(tmp_path / "whole" / "config.json").agent == synthetic.tiny(AGENTS[name])
    whole, parts = (tmp_path / run / "metrics.jsonl" for run in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    assert [row["step"] for row in read_metrics(tmp_path / "whole")] == [4, 4, 8, 8, 12, 12]
    for seed in (0, 1):
        one, other = (load_policy(tmp_path / run / f"policy-seed-{seed}.sorl") for run in ("whole", "parts"))
        assert _same(_arrays(one.networks), _arrays(other.networks))
        assert one(np.full((2, 3), 50.0), key=jax.random.key(0)).shape == (2, 2)
