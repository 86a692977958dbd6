"""A grid of budgets on a tiny trained run: every pair once, on the same episodes, and on after a kill."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tyro

from sorl import load_run
from sorl.agents import Fql, Rebrac, Sorl, SorlPlus
from sorl.config import presets
from sorl.environments import named
from sorl.evaluate.episodes import episode_seeds
from sorl.evaluate.options import DecisionOptions
from sorl.functional import verifiers
from sorl.functional.verifiers import Min, Softmax
from sorl.policy import load_policy, policy_path
from sorl.runs import run as runs
from sorl.scaling import __main__ as scaling, grid as scaling_grid
from sorl.scaling.summary import best_pair

from .. import synthetic
from ..reaching import CUBE, Pool, Reaching, Seldom, make_run


@pytest.fixture
def reaching(monkeypatch):
    monkeypatch.setattr(named, "OgbenchEnvironment", Reaching)
    monkeypatch.setattr(scaling_grid, "EnvironmentPool", Pool)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("trained") / "run", updates=2)


@pytest.fixture
def run(trained, tmp_path):
    """A run of two training seeds, without results."""
    return shutil.copytree(trained, tmp_path / "run")


QUICK = ["--timing-seconds", "0", "--batch-size", "4", "--no-store-scores", "--no-compilation-cache", "--quiet"]


def grid(directory, *arguments):
    return scaling.main(tyro.cli(scaling.Config, args=[str(directory), *QUICK, *arguments]))


SMALL = ["--inference-steps", "1", "--candidates", "1", "2", "--episodes", "3"]
GRID = ["--inference-steps", "1", "3", "--candidates", "1", "4", "--episodes", "6"]


def test_the_files_hold_a_row_for_each_pair_and_every_episode(reaching, run, capsys):
    pairs = grid(run, *GRID)
    assert [(pair["inference_steps"], pair["candidates"]) for pair in pairs] == [(1, 1), (3, 1), (1, 4), (3, 4)]
    written = json.loads((run / "scaling.json").read_text())
    assert written["pairs"] == pairs
    assert (written["settings"]["episodes"], written["settings"]["step"]) == (6, 2)
    assert {tuple(row["outcomes"]["episode_seeds"]) for row in written["rows"]} == {tuple(episode_seeds(0, 6).tolist())}
    assert [row["training_seed"] for row in written["rows"]] == [3, 5] * 4
    for number, pair in enumerate(pairs):
        rows = written["rows"][2 * number : 2 * number + 2]
        assert pair["success"] == pytest.approx(np.mean([row["outcomes"]["success"] for row in rows]))
        assert pair["length"] == 4.0
        assert 0 < pair["latency_ms"] <= pair["latency_p95_ms"]
    with (run / "scaling.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["success"] for row in rows] == [str(pair["success"]) for pair in pairs]
    assert all((run / name).read_bytes().startswith(b"\x89PNG") for name in ("scaling.png", "pareto.png"))
    printed = capsys.readouterr().out
    assert f"{CUBE} after 2 updates on generated data, 9 episodes; 2 training seeds, 6 episodes played" in printed
    best = best_pair(pairs)
    assert re.search(rf"Best: .* at {best['latency_p95_ms']:.3g} ms \(p95\); .* of equals it is the fastest", printed)


@pytest.fixture
def played(monkeypatch):
    """The names of the budgets that were played, once for each training seed."""

    def evaluate(*arguments, budget, **options):
        names.append(budget.name)
        return original(*arguments, budget=budget, **options)

    names, original = [], scaling_grid.evaluate_policy
    monkeypatch.setattr(scaling_grid, "evaluate_policy", evaluate)
    return names


def test_no_finished_pair_is_played_again(reaching, played, run, capsys, monkeypatch):
    whole = grid(shutil.copytree(run, run.parent / "whole"), *GRID)
    assert played == ["M1N1"] * 2 + ["M3N1"] * 2 + ["M1N4"] * 2 + ["M3N4"] * 2

    def stop(*arguments):
        if len(played) > 4:
            raise KeyboardInterrupt
        return original(*arguments)

    original = scaling_grid.time_decisions
    monkeypatch.setattr(scaling_grid, "time_decisions", stop)
    played.clear()
    with pytest.raises(KeyboardInterrupt):
        grid(run, *GRID)
    monkeypatch.setattr(scaling_grid, "time_decisions", original)
    assert played == ["M1N1"] * 2 + ["M3N1"] * 2 + ["M1N4"] * 2  # the last was stopped while it was timed
    played.clear()
    found = grid(run, *GRID)
    assert played == ["M1N4"] * 2 + ["M3N4"] * 2
    assert "2 of 4 pairs are finished" in capsys.readouterr().out
    assert [successes(pair) for pair in found] == [successes(pair) for pair in whole]
    played.clear()
    assert grid(run, *GRID) == found
    grid(run, *GRID, "--inference-steps", "1", "3", "4")
    assert played == ["M4N1"] * 2 + ["M4N4"] * 2


def successes(pair):
    return {name: value for name, value in pair.items() if "success" in name or "difference" in name or "gain" in name}


def test_a_finished_pair_that_is_damaged_or_another_one_is_named(reaching, run):
    grid(run, *SMALL)
    first, second = (next(run.glob(f"scaling/*/{name}.json")) for name in ("M1N1", "M1N2"))
    for content in ("{}", '{"rows": []}', second.read_text()):
        first.write_text(content)
        with pytest.raises(ValueError, match="M1N1.json (does not hold that pair|has rows without).*; delete it"):
            grid(run, *SMALL)
    first.unlink()
    grid(run, *SMALL)


@pytest.mark.parametrize(
    "change", [["--episodes", "5"], ["--seed", "1"], ["--verifier", "min"], ["--batch-size", "5"], "policy"]
)
def test_results_of_other_policies_or_settings_are_not_mixed_in(reaching, played, run, capsys, change):
    grid(run, *SMALL)
    played.clear()
    capsys.readouterr()
    if change == "policy":
        record = load_policy(policy_path(run, 5)).provenance
        dataclasses.replace(load_policy(policy_path(run, 3)), provenance=record).save(policy_path(run, 5))
        change = []
    grid(run, *SMALL, *change)
    assert len(played) == 4
    out = capsys.readouterr().out
    assert ("decisions with verifier min timed" in out) == ("--verifier" in change)
    assert "are of other policies or settings, and are not used" in out
    played.clear()
    grid(run, *SMALL, *change)
    assert played == []


def test_a_grid_that_failed_before_its_first_pair_left_no_earlier_results(reaching, run, capsys, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(TypeError):
        patched.setattr(scaling_grid, "evaluate_policy", None)
        grid(run, *SMALL)
    grid(run, *SMALL)
    assert "Earlier results" not in capsys.readouterr().out


def test_each_pair_is_traced_once_for_each_batch_shape(reaching, tmp_path, monkeypatch):
    def choose(candidate, value, draws, *rest):
        traced.append(draws.shape[0])
        return original(candidate, value, draws, *rest)

    traced, original = [], verifiers.choose
    monkeypatch.setattr(verifiers, "choose", choose)
    agent = synthetic.agent(hidden_sizes=(5,))  # that no other test compiles
    grid(make_run(tmp_path / "run", agent), *SMALL)
    # The rows of an evaluation, one observation, and a batch of four; two training seeds share them.
    assert sorted(traced) == [1] * 3 + [2] * 3


def test_the_reference_is_always_played_and_comes_first():
    def pairs(agent, *arguments):
        config = tyro.cli(scaling.Config, args=["run", *arguments])
        return [(budget.inference_steps, budget.candidates) for budget in scaling.budgets(config, agent)]

    assert pairs(Sorl(), "--inference-steps", "4", "8", "4", "--candidates", "8") == [(1, 1), (4, 8), (8, 8)]
    steps, candidates = (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32)
    assert pairs(Sorl()) == [(m, n) for n in candidates for m in steps]
    assert pairs(SorlPlus(renoise=3)) == [(m, n) for n in candidates for m in (1, 2, 3, 4, 8, 16)]
    assert pairs(Fql()) == [(1, n) for n in candidates]
    assert pairs(Rebrac()) == [(1, 1)]
    with pytest.raises(ValueError, match="cannot act with 2 inference steps"):
        pairs(Fql(), "--inference-steps", "2")


def test_options_of_a_decision_hold_for_every_pair():
    options = DecisionOptions(verifier="min-softmax0.5", policy_conditioning="exact")
    three, six = options.budgets(Sorl().actor.budgets, (3, 6), (2,))
    assert (three.policy_conditioning, six.policy_conditioning, six.critic_conditioning) == (3, 6, None)
    assert [budget.verifier for budget in (three, six)] == 2 * [Softmax(0.5, Min())]
    assert DecisionOptions().budgets(Rebrac().actor.budgets, None, None)[0].noise_scale == 0.0  # the agent's own
    assert DecisionOptions(critic_conditioning=4).budgets(Sorl().actor.budgets, (3,), (1,))[0].critic_conditioning == 4


def test_what_cannot_be_played_is_refused(run, monkeypatch):
    with pytest.raises(ValueError, match="batch_size is 0; give a whole number from 1 to "):
        scaling.Config(run, batch_size=0)
    with pytest.raises(ValueError, match=r"has no training seeds \[4\]"):
        grid(run, "--seeds", "4")
    offline = dataclasses.replace(load_run(run), config=presets.own_logs(run / "logs.npz"))
    monkeypatch.setattr(scaling, "load_run", lambda path: offline)
    with pytest.raises(ValueError, match="without an environment, so no episode can be played"):
        grid(run)


def test_without_matplotlib_it_says_how_to_get_pictures(reaching, run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    grid(run, "--inference-steps", "1", "--candidates", "1", "--episodes", "1")
    assert "pip install 'sorl[plots]'" in capsys.readouterr().out
    assert (run / "scaling.csv").exists() and not (run / "scaling.png").exists()


def test_the_pairs_go_into_the_policies_that_were_played(reaching, run, capsys):
    pairs = grid(run, *GRID, "--store-scores")
    loaded = load_run(run)
    for seed in (3, 5):
        assert load_policy(policy_path(run, seed)).scores == pairs
    assert grid(run, *GRID) == pairs  # scores in its file do not make a policy another one
    shutil.copy(policy_path(run, 3), policy_path(run, 5))
    scaling.store_scores(loaded, (5,), pairs, run)
    assert "changed while the grid was played, so it gets no scores" in capsys.readouterr().out


def test_a_policy_file_is_played_like_a_run_of_one_seed(reaching, run, tmp_path):
    policy = policy_path(run, 3)
    with pytest.raises(ValueError, match="is a policy without a run directory; give one for the results as --out"):
        grid(policy, *SMALL)
    pairs = grid(policy, *SMALL, "--store-scores", "--out", str(tmp_path / "results"))
    alone = grid(run, *SMALL, "--seeds", "3")
    assert [successes(pair) for pair in pairs] == [successes(pair) for pair in alone]
    assert load_policy(tmp_path / "results" / policy.name).scores == pairs
    assert load_policy(policy).scores == []


def test_the_policies_of_another_run_are_not_replaced(reaching, run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    before = policy_path(other, 3).read_bytes()
    message = r"other is another run, and the copy of .*run/policy-seed-3\.sorl with scores would replace"
    with pytest.raises(ValueError, match=message):
        grid(run, *SMALL, "--store-scores", "--out", str(other))
    assert policy_path(other, 3).read_bytes() == before and not (other / "scaling.json").exists()
    # The run's own directory, given by the path of one of its policies.
    grid(policy_path(run, 3), *SMALL, "--store-scores", "--out", str(run))
    assert load_policy(policy_path(run, 3)).scores


def test_scores_outlive_a_policy_that_is_saved_again_but_not_its_successor(run):
    path, loaded = policy_path(run, 3), load_run(run)
    load_policy(path).with_scores([synthetic.score(1, 1)]).save(path)
    again = {3: loaded.policies[3]}
    runs.save_policies(run, loaded.config, again, loaded.step)
    assert len(load_policy(path).scores) == 1
    runs.save_policies(run, loaded.config, again, loaded.step + 1)
    assert load_policy(path).scores == []
    path.write_bytes(path.read_bytes()[:-1])
    runs.save_policies(run, loaded.config, again, loaded.step + 1)
    assert load_policy(path).provenance["step"] == loaded.step + 1


@pytest.mark.slow
def test_a_killed_grid_goes_on_where_it_was(played, tmp_path):
    """Real processes and a real simulator, killed once a pair is finished."""
    run, copy = make_run(tmp_path / "run", sizes=(28, 5), seeds=(3,)), tmp_path / "copy"
    shutil.copytree(run, copy)
    arguments = ["--inference-steps", "1", "2", "3", "--candidates", "1", "--episodes", "2", *QUICK]
    command = [sys.executable, "-m", "sorl.scaling", str(run), *arguments]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}  # killed, it may leave half
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not (finished := finished_pairs(run)) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    finished = finished_pairs(run)
    assert process.returncode == -signal.SIGKILL and 1 <= len(finished) < 3, output.decode()
    found = grid(run, *arguments)
    assert sorted([*finished, *played]) == ["M1N1", "M2N1", "M3N1"]
    assert [successes(pair) for pair in found] == [successes(pair) for pair in grid(copy, *arguments)]


def finished_pairs(run):
    return [path.stem for path in run.glob("scaling/*/M*.json") if re.fullmatch(r"M\d+N\d+", path.stem)]


def test_a_success_that_is_not_reported_counts_as_none_where_another_pair_has_one(reaching, run, monkeypatch):
    def evaluate(*arguments, budget, **options):
        monkeypatch.setattr(Seldom, "easy", budget.inference_steps > 1)
        return original(*arguments, budget=budget, **options)

    original = scaling_grid.evaluate_policy
    monkeypatch.setattr(named, "OgbenchEnvironment", Seldom)
    monkeypatch.setattr(scaling_grid, "evaluate_policy", evaluate)
    words = [str(run), *[word for word in QUICK if word != "--no-store-scores"], "--candidates", "1", "--episodes", "3"]
    # A grid without any success is judged by the return; its pair is not played again, and keeps what was reported.
    (alone,) = scaling.main(tyro.cli(scaling.Config, args=[*words, "--inference-steps", "1"]))
    assert alone["success"] is None and alone["return_low"] <= alone["return"] <= alone["return_high"]
    pairs = scaling.main(tyro.cli(scaling.Config, args=[*words, "--inference-steps", "1", "3"]))
    assert [(pair["success"], pair["difference"]) for pair in pairs] == [(0.0, 0.0), (1.0, 1.0)]
    with (run / "scaling.csv").open() as file:
        assert [row["success"] for row in csv.DictReader(file)] == ["0.0", "1.0"]
    rows = json.loads((run / "scaling.json").read_text())["rows"]
    assert [row["outcomes"]["success"] for row in rows] == [[False] * 3] * 2 + [[True] * 3] * 2
    assert [row["success"] for row in load_policy(policy_path(run, 5)).scores] == [0.0, 1.0]
