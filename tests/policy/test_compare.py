"""Latencies by runtime: measured in turns, in a table, and without what is not installed."""

import sys

import numpy as np
import pytest

from sorl import Budget, Normalisation, Policy
from sorl.functional.verifiers import Softmax
from sorl.policy import __main__ as command, compare

from .. import synthetic
from ..random_networks import make_policy


@pytest.fixture(scope="module")
def policy():
    agent = synthetic.agent()
    return Policy(agent.actor, make_policy(agent, 3, 2, seed=0), Normalisation.identity(3, 2))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(compare, "ROUNDS", 1)
    monkeypatch.setattr(compare, "CALLS", (1, 1))


def test_medians_and_percentiles_of_interleaved_calls(monkeypatch):
    monkeypatch.setattr(compare, "ROUNDS", 3)
    now, order = [0.0], []

    def decision(name, *milliseconds):
        durations = iter(milliseconds)

        def decide():
            order.append(name)
            now[0] += next(durations) / 1000

        return decide

    # The first call compiles, the second sets the number of calls (20 ms / 10 ms), a round's first is a warm-up.
    a = decision("a", 900, 10, 500, 10, 12, 500, 14, 16, 500, 18, 60)
    b = decision("b", 900, 1000, 500, 1, 1, 500, 1, 1, 500, 1, 1)
    found = compare.measure({"a": a, "b": b}, clock=lambda: now[0])
    assert "".join(order) == "aabb" + "aaabbb" * 3
    assert found["a"].median == pytest.approx(15)  # of 10, 12, 14, 16, 18, 60
    assert found["a"].p95 == pytest.approx(18 + 0.75 * 42)  # at place 0.95 * 5 = 4.75
    assert found["b"].median == found["b"].p95 == pytest.approx(1)


def test_every_runtime_makes_the_same_decision(policy):
    pytest.importorskip("onnxruntime", reason="onnx and onnxruntime are in the dependency group tests")
    still = policy.with_budget(Budget(2, noise_scale=0.0))
    actions = {name: np.ravel(make(still)()) for name, make in compare.RUNTIMES.items()}  # pyright: ignore
    np.testing.assert_allclose(actions["StableHLO"], actions["jax"], atol=1e-6)
    np.testing.assert_allclose(actions["onnxruntime"], actions["jax"], atol=1e-6)


def test_what_is_not_installed_is_left_out_with_a_sentence(policy, quick, monkeypatch, tmp_path, capsys):
    for name in [name for name in sys.modules if name.startswith("sorl.policy.onnx.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    score = synthetic.score(2, 1)
    policy.with_scores([score]).save(tmp_path / "policy.sorl")
    command.main(command.Config(tmp_path / "policy.sorl", compare=True, compilation_cache=False))
    *_, head, _, line, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["M^inf", "N", "jax", "StableHLO", "onnxruntime"]
    assert len(line.split()) == 7 and line.split()[:2] == ["2", "1"] and line.split()[-1] == "-"
    assert last.startswith("onnxruntime is left out: onnx") and last.endswith(
        "is not installed; pip install 'sorl[onnx]'."
    )


def test_a_budget_that_a_format_does_not_have_is_left_out(policy, quick):
    budget = Budget(1, 2, verifier=Softmax(1.0))
    found = compare.compare(policy, [budget])
    assert list(found.timings[budget]) == ["jax"]
    assert found.left_out[0].startswith("StableHLO at M1N2")
    assert "draws more than its noise" in found.left_out[0]
