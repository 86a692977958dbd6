"""`sorl.evaluate` writes a row for every budget and seed, and refuses what it cannot play."""

import csv
import dataclasses
import json
import re
import shutil
import sys
from typing import Any

import jax
import numpy as np
import pytest
import tyro

from sorl import Policy
from sorl.agents import Sorl
from sorl.config import presets
from sorl.config.json_form import to_json
from sorl.config.options import EvaluationConfig, TrainConfig
from sorl.environments import named
from sorl.environments.ogbench import OgbenchEnvironment
from sorl.evaluate import video
from sorl.evaluate.__main__ import Config, main
from sorl.evaluate.episodes import episode_seeds
from sorl.policy.seed_record import write_bad_seeds
from sorl.runs.run import Run, load_run
from sorl.statistics.intervals import wilson_interval
from sorl.train import summary

from ..reaching import AGENT, Pool, Reaching, Seldom, make_run
from .made_up import CUBE, identity


@pytest.fixture
def run(tmp_path, monkeypatch):
    agent = Sorl(hidden_sizes=(8,), critic_hidden_sizes=(8,))
    train = jax.jit(lambda key: agent.policy(agent.init(28, 5, key=key)))
    policies = {seed: Policy(agent.actor, train(jax.random.key(seed)), identity()) for seed in (3, 5)}
    found = Run(
        tmp_path,
        TrainConfig(env=CUBE, agent=agent, seeds=(3, 5)),
        policies,
        70,
        {"source": "generated", "episodes": 9},
    )
    monkeypatch.setattr(sys.modules[main.__module__], "load_run", lambda path: found)
    return found


def parse(run, *arguments):
    return tyro.cli(Config, args=[str(run.directory), *arguments])


def test_command_writes_a_row_for_every_budget_and_seed(run, capsys):
    summary = main(
        parse(
            run, "--inference-steps", "1", "4", "--candidates", "1", "2", "--episodes", "1", "--success-timing", "post"
        )
    )
    assert [(row["inference_steps"], row["candidates"]) for row in summary] == [(1, 1), (4, 1), (1, 2), (4, 2)]
    printed = capsys.readouterr().out
    assert f"{CUBE} after 70 updates on generated data, 9 episodes; 1 episodes played" in printed
    assert printed.startswith("Playing 4 budgets x 2 seeds x 1 episode: 8 episodes.\nAbout ")
    assert "success judged post-step" in printed
    with (run.directory / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    written = json.loads((run.directory / "evaluation.json").read_text())
    assert len(rows) == len(written["rows"]) == 8
    assert {(row["training_seed"], row["step"], row["success_timing"]) for row in rows} == {
        ("3", "70", "post"),
        ("5", "70", "post"),
    }
    assert written["summary"] == summary
    assert {tuple(row["episode_seeds"]) for row in written["rows"]} == {tuple(episode_seeds(0, 1).tolist())}
    assert not [path for path in run.directory.iterdir() if path.name.startswith(".")]


def test_what_was_played_is_in_the_files_or_in_the_text_if_one_cannot_be_written(run, monkeypatch, capsys):
    arguments = parse(run, "--episodes", "1", "--inference-steps", "1", "--candidates", "1")
    (run.directory / "evaluation.json").mkdir()
    with pytest.raises(IsADirectoryError):
        main(arguments)
    assert f"{CUBE} after 70 updates" in capsys.readouterr().out
    (run.directory / "evaluation.json").rmdir()

    def refuse(text):
        if f"{CUBE} after 70 updates" in text:
            raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", refuse)
    with pytest.raises(BrokenPipeError):
        main(arguments)
    assert len(json.loads((run.directory / "evaluation.json").read_text())["rows"]) == 2


def test_a_pretrained_policy_is_played_without_files_or_with_those_of_a_run_of_one_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    budget = ["--inference-steps", "4", "--candidates", "1", "--episodes", "1", "--no-compilation-cache"]
    found = main(tyro.cli(Config, args=["cube-single-quickstart", *budget]))
    assert [(row["seeds"], row["interval"]) for row in found] == [(1, "wilson")]
    printed = capsys.readouterr().out
    assert f"{CUBE} after 40000 updates on generated data, 100 episodes; 1 episodes played" in printed
    assert "success judged pre-step" in printed and list(tmp_path.iterdir()) == []
    again = main(tyro.cli(Config, args=["cube-single-quickstart", *budget, "--out", "results"]))
    rows = json.loads((tmp_path / "results" / "evaluation.json").read_text())["rows"]
    assert [row["training_seed"] for row in rows] == [0]
    assert again[0]["return"] == found[0]["return"] == rows[0]["return"]


def test_a_policy_of_own_logs_needs_an_environment_and_one_without_a_record_is_refused(tmp_path):
    agent = Sorl(hidden_sizes=(8,), critic_hidden_sizes=(8,))
    policy = Policy(agent.actor, agent.policy(agent.init(28, 5, key=jax.random.key(0))), identity())
    data = {"source": "own logs", "path": "logs.npz", "episodes": 4}
    versions = {"success_timing": "pre", "jax_default_matmul_precision": "float32", "data": data}
    record = {"env": None, "step": 7, "seed": 2, "agent": to_json(agent), "versions": versions}
    dataclasses.replace(policy, provenance=record).save(tmp_path / "own.sorl")
    found = load_run(tmp_path / "own.sorl")
    assert (found.step, list(found.policies), found.home) == (7, [2], None)
    assert found.in_environment("gymnasium:Pendulum-v1").env == "gymnasium:Pendulum-v1"
    renamed = shutil.copy(tmp_path / "own.sorl", tmp_path / "Best.policy")
    assert load_run(renamed).step == 7
    with pytest.raises(ValueError, match="own.sorl was trained on logs without an environment.*name one with --env"):
        main(tyro.cli(Config, args=[str(tmp_path / "own.sorl")]))
    policy.save(tmp_path / "bare.sorl")
    with pytest.raises(ValueError, match=r"bare.sorl has no record of its run \(agent\), .*sorl.evaluate_policy"):
        main(tyro.cli(Config, args=[str(tmp_path / "bare.sorl")]))
    dataclasses.replace(policy, provenance=record | {"versions": versions | {"data": {}}}).save(tmp_path / "part.sorl")
    with pytest.raises(ValueError, match=r"part.sorl has no record of its run \(source\)"):
        load_run(tmp_path / "part.sorl")


def test_command_leaves_out_a_bad_seed_or_plays_it_with_its_own_step(run, tmp_path, monkeypatch, capsys):
    found = dataclasses.replace(run, steps={3: 20, 5: 70}, bad_seeds=(3,))
    monkeypatch.setattr(sys.modules[main.__module__], "load_run", lambda path: found)
    budget = ["--inference-steps", "1", "--candidates", "1", "--episodes", "1"]
    played = []
    for seeds in ([], ["--seeds", "3", "5"]):
        main(parse(run, *budget, *seeds))
        rows = json.loads((run.directory / "evaluation.json").read_text())["rows"]
        played.append([(row["training_seed"], row["step"]) for row in rows])
    assert played == [[(5, 70)], [(3, 20), (5, 70)]]
    assert capsys.readouterr().out.count("Left out because losses became non-finite in training: seed 3") == 1
    with pytest.raises(FileExistsError, match=r"evaluation.json has rows of seed 3, which --seeds would lose; give"):
        main(parse(run, *budget, "--seeds", "5"))
    main(parse(run, *budget, "--seeds", "5", "--out", str(tmp_path / "alone")))
    assert len(json.loads((tmp_path / "alone" / "evaluation.json").read_text())["rows"]) == 1


def test_the_table_after_training_replaces_one_of_more_seeds(tmp_path, monkeypatch):
    directory = make_run(tmp_path / "run")
    monkeypatch.setattr(named, "OgbenchEnvironment", Reaching)
    monkeypatch.setattr(sys.modules[main.__module__], "EnvironmentPool", Pool)
    once = {"final_inference_steps": (1,), "final_candidates": (1,), "final_episodes": 1}
    config = TrainConfig(agent=AGENT, seeds=(3, 5), evaluation=EvaluationConfig(interval=10, **once))
    (directory / "metrics.jsonl").touch()
    played = []
    for bad in ({}, {3: 7}):  # a seed goes bad after a resume
        write_bad_seeds(directory, bad)
        assert summary.show_results(config, directory, [seed for seed in config.seeds if seed not in bad], quiet=True)
        rows = json.loads((directory / "evaluation.json").read_text())["rows"]
        played.append([row["training_seed"] for row in rows])
    assert played == [[3, 5], [5]]


def test_command_films_the_first_seed_at_each_budget(run, monkeypatch, capsys):
    monkeypatch.setattr(OgbenchEnvironment, "render", lambda self: np.zeros((16, 16, 3), np.uint8))
    monkeypatch.setattr(video, "_suffix", lambda: ".gif")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    films = run.directory / "films"
    budget = ["--inference-steps", "2", "--candidates", "1", "--episodes", "1", "--seeds", "5"]
    main(parse(run, *budget, "--video", str(films)))
    assert [path.name for path in films.iterdir()] == ["seed5-steps2-candidates1-episode0.gif"]
    assert re.search(r"filming seed5-steps2-candidates1: \d+step", capsys.readouterr().err)


def test_a_missing_renderer_is_told_before_anything_is_played(run, tmp_path, monkeypatch):
    def broken(self):
        raise RuntimeError("no display")

    monkeypatch.setattr(OgbenchEnvironment, "render", broken)
    monkeypatch.setattr(video, "_suffix", lambda: ".gif")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.raises(RuntimeError, match="cannot render off screen here .*no display"):
        main(parse(run, "--episodes", "1", "--video", str(tmp_path / "films"), "--out", str(tmp_path / "out")))
    assert list((tmp_path / "out").iterdir()) == []


def test_command_refuses_what_it_cannot_play(run, monkeypatch):
    with pytest.raises(ValueError, match=r"No training seed is named; give at least one of \[3, 5\], or leave --seeds"):
        main(parse(run, "--seeds"))
    with pytest.raises(ValueError, match="No number of candidates is given"):
        main(parse(run, "--candidates"))
    with pytest.raises(ValueError, match=r"has no training seeds \[4\]; it has \[3, 5\]"):
        main(parse(run, "--seeds", "3", "4"))
    refused: list[tuple[str, Any]] = [("episodes", 0), ("episodes", 10**30), ("workers", -1), ("video_episodes", 0)]
    for name, value in refused:
        with pytest.raises(ValueError, match=f"{name} is {value}; give a whole number from 1 to "):
            Config(run.directory, **{name: value})
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed is {seed}; give a whole number from 0 to "):
            Config(run.directory, seed=seed)
    with pytest.raises(ValueError, match="step_timeout is 0.0; give a number of seconds > 0"):
        Config(run.directory, step_timeout=0.0)
    own_logs = dataclasses.replace(presets.own_logs(run.directory / "logs.npz"), seeds=(3, 5))
    offline = dataclasses.replace(run, config=own_logs)
    monkeypatch.setattr(sys.modules[main.__module__], "load_run", lambda path: offline)
    with pytest.raises(ValueError, match="was trained on logs without an environment, so no episode can be played"):
        main(parse(run))


@pytest.fixture
def seldom(monkeypatch):
    """An environment that reports successes alone, and succeeds with two or more steps."""

    def evaluate(*arguments, budget, **options):
        monkeypatch.setattr(Seldom, "easy", budget.inference_steps > 1)
        return original(*arguments, budget=budget, **options)

    module = sys.modules[main.__module__]
    original = module.evaluate_policy  # type: ignore[attr-defined]
    monkeypatch.setattr(named, "OgbenchEnvironment", Seldom)
    monkeypatch.setattr(module, "EnvironmentPool", Pool)
    monkeypatch.setattr(module, "evaluate_policy", evaluate)


def played(directory, *steps):
    few = ["--candidates", "1", "--episodes", "4", "--no-compilation-cache", "--quiet", "--inference-steps", *steps]
    main(tyro.cli(Config, args=[str(directory), *few]))
    with (directory / "evaluation.csv").open() as file:
        return json.loads((directory / "evaluation.json").read_text()), list(csv.DictReader(file))


@pytest.mark.parametrize("steps", [("1", "2"), ("2", "1")])
def test_a_success_that_is_not_reported_counts_as_none_where_another_budget_has_one(seldom, tmp_path, steps):
    written, rows = played(make_run(tmp_path / "run"), *steps)
    expected = {1: (0, [False] * 4), 2: (4, [True] * 4)}
    assert [(row["successes"], row["success"]) for row in written["rows"]] == [
        expected[int(step)] for step in steps for _ in range(2)
    ]
    assert {row["inference_steps"]: row["success"] for row in written["summary"]} == {1: 0.0, 2: 1.0}
    assert [(row["inference_steps"], row["success"]) for row in rows] == [
        (step, {"1": "0.0", "2": "1.0"}[step]) for step in steps for _ in range(2)
    ]
    low, high = wilson_interval(0, 4)
    assert {(row["success_low"], row["success_high"]) for row in rows if row["success"] == "0.0"} == {
        (str(low), str(high))
    }
    assert "return_low" not in rows[0]


def test_without_any_success_the_return_is_the_score(seldom, tmp_path):
    written, rows = played(make_run(tmp_path / "run"), "1")
    assert [row["success"] for row in written["rows"]] == [None] * 2 and "return_low" in rows[0]
    assert written["summary"][0]["success"] is None
