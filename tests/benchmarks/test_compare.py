"""The comparison of agents: which runs it makes, that it goes on where it was, and what its table says."""

import dataclasses
import json
import shutil
import subprocess
import sys
from typing import Any

import compare
import jax
import pytest

from sorl import Policy
from sorl.data.normalisation import Normalisation
from sorl.policy.seed_record import write_bad_seeds
from sorl.runs import run as runs
from sorl.runs.metrics import MetricLog
from sorl.runs.versions import record_versions, versions
from sorl.statistics.intervals import wilson_interval
from sorl.sweep.attempt import Attempt
from sorl.train import loop
from sorl.train.cli import agent_words

from .. import synthetic


TASK = "cube-single-play-singletask-task1-v0"
TINY = "--agent.hidden-sizes 8 --agent.critic-hidden-sizes 8 --updates 20 --batch-size 4"


def config(out, **changes):
    return compare.Config(
        agents=("sorl", "fql --agent.distillation-coefficient 2"), seeds=(1, 2), options=TINY, out=out, **changes
    )


def test_every_agent_has_a_run_for_each_seed_with_its_own_options_and_those_of_all(tmp_path):
    members = compare.make_members(config(tmp_path))
    assert [(member.name, member.seed) for member in members] == [
        ("sorl", 1),
        ("fql --agent.distillation-coefficient 2", 1),
        ("sorl", 2),
        ("fql --agent.distillation-coefficient 2", 2),
    ]
    assert members[1].directory == tmp_path / "fql_agent.distillation-coefficient_2" / TASK / "seed-1"
    made: Any = members[3].config
    assert (type(made.agent).__name__, made.seeds, made.updates) == ("Fql", (2,), 20)
    assert (made.agent.distillation_coefficient, made.agent.hidden_sizes, made.data.episodes) == (2.0, (8,), 100)


def test_a_budget_that_the_table_would_lack_is_refused_before_the_training(tmp_path):
    lacking = dataclasses.replace(config(tmp_path), options=f"{TINY} --evaluation.final-inference-steps 1 2")
    with pytest.raises(ValueError, match="sorl is evaluated at M4N1 during training and not after it; add that budget"):
        compare.make_members(dataclasses.replace(lacking, agents=("sorl",)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tasks": ("gymnasium:Pendulum-v1",), "options": "--data logs.npz --evaluation.interval 9"},
            "no task of OGBench",
        ),
        ({"options": f"{TINY} --population agent.q-coefficient 10 50"}, "sorl trains a population, whose members the"),
    ],
)
def test_runs_that_the_table_cannot_show_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        compare.make_members(dataclasses.replace(config(tmp_path), agents=("sorl",), **changes))


def test_all_agents_are_compared_unless_it_is_told_which():
    assert len(compare.Config().agents) == len(agent_words()) == 13


@pytest.mark.parametrize("change", [{"jobs": 0}, {"rounds": 0}])
def test_counts_below_one_are_refused(change):
    with pytest.raises(ValueError, match="give at least 1 of each"):
        compare.Config(**change)


def make_run(member, successes=(0.0, 0.5, 0.6, 0.7), final=0.5):
    """What `sorl.train` leaves of a run whose evaluations, of 20 episodes, had these rates of success."""
    made, directory = member.config, member.directory
    runs.create(directory, made)
    record_versions(directory, made, {"source": "generated", "episodes": 9, "path": "-", "sha256": "-"})
    data = synthetic.dataset(observation_size=2, action_size=2)
    state = loop.init(made.agent, data, (0,), batch_size=4)
    networks = made.agent.policy(jax.tree.map(lambda leaf: leaf[0], state.agent))
    policy = Policy(made.agent.actor, networks, Normalisation.identity(2, 2))
    runs.save_policies(directory, made, {member.seed: policy}, 20)
    budget = made.budgets(final=False)[0]
    with MetricLog(directory) as log:
        for step, success in enumerate(successes):
            figures = {"success": success, "return": -1.0, "episode_length": 2.0}
            log.write(step, member.seed, {f"evaluation/{name}/{budget.name}": value for name, value in figures.items()})
    sizes = {"inference_steps": budget.inference_steps, "candidates": budget.candidates}
    rows = [{"episodes": 50, "successes": 50 * final, "training_seed": member.seed, "step": 20} | sizes]
    (directory / "evaluation.json").write_text(json.dumps({"summary": [{"success": final} | sizes], "rows": rows}))
    (directory / "attempt.json").write_text(json.dumps({"exit_code": 0, "peak_bytes": 3 * 2**20}))


@pytest.fixture
def free_of_cost(monkeypatch):
    """Figures instead of measurements, which compile two agents."""
    made_up = {"update_ms": 1.0, "decision_ms": 1.0, "state_bytes": 8}
    monkeypatch.setattr(compare, "measure_costs", lambda _, members: {member.subject: made_up for member in members})


def test_costs_are_those_of_fresh_networks(tmp_path):
    tasks = (TASK.replace("v0", "*"),)  # a pattern, as a sweep takes it
    settings = dataclasses.replace(config(tmp_path, rounds=1), agents=("fql", "sorl --agent.chunk 2"), tasks=tasks)
    costs = compare.measure_costs(settings, compare.make_members(settings))
    assert len(costs) == 2
    for cost in costs.values():
        assert cost["update_ms"] > 0 and cost["decision_ms"] > 0
        # Layers of eight units, with their averages and Adam's moments, are a few kilobytes.
        assert 0 < cost["state_bytes"] < 2**16


@pytest.mark.usefixtures("free_of_cost")
def test_the_table_of_finished_runs(tmp_path, capsys):
    settings = config(tmp_path, rounds=1, tasks=(TASK.replace("v0", "*"),))
    for member in compare.make_members(settings):
        make_run(member, final=0.5 if member.seed == 1 else 0.7)
    worse, better = sorted(compare.main(settings), key=lambda row: row["agent"] == "sorl")
    assert (better["agent"], better["steps"], better["seeds"], better["peak_bytes"]) == ("sorl", 4, 2, 3 * 2**20)
    assert better["headline"] == pytest.approx(0.6) and better["final"] == pytest.approx(0.6)
    # Seeds that agree have Wilson's interval of the 20 episodes of each; two that differ by 0.2 say little.
    assert (better["headline_low"], better["headline_high"]) == pytest.approx(wilson_interval(24, 40))
    assert (better["final_low"], better["final_high"]) == (0.0, 1.0)
    assert (worse["steps"], worse["update_ms"], worse["decision_ms"], worse["state_bytes"]) == (1, 1.0, 1.0, 8)
    output = capsys.readouterr()
    printed = output.out
    assert "4 of 4 runs finished" in output.err and "| `sorl` | 4, 1 | 0.60 | 0.45 .. 0.74 | 0.60 |" in printed
    assert (tmp_path / "comparison.md").read_text() in printed
    lines = (tmp_path / "comparison.csv").read_text().splitlines()
    assert lines[0] == "agent,task,seed,kind,steps,candidates,successes,episodes,commit,peak_bytes"
    source = versions(compare.make_members(settings)[0].config)["git_commit"]
    made = f"{'' if source is None else source},{3 * 2**20}"
    assert lines[1:3] == [
        f"sorl,{TASK},1,last three evaluations,4,1,36,60,{made}",
        f"sorl,{TASK},1,after training,4,1,25,50,{made}",
    ]
    assert json.loads((tmp_path / "comparison.json").read_text())["machine"]["jax"] == jax.__version__


@pytest.mark.usefixtures("free_of_cost")
def test_a_table_that_was_made_with_other_decisions_is_refused(tmp_path):
    settings = config(tmp_path, rounds=1)
    members = compare.make_members(settings)
    for member in members:
        make_run(member)
    path = members[-1].directory / "evaluation.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"rows": [row | {"noise_scale": 0.5} for row in content["rows"]]}))
    with pytest.raises(ValueError, match=f"^{path} was made by sorl.evaluate with noise scale 0.5; remove it, and"):
        compare.main(settings)


@pytest.mark.usefixtures("free_of_cost")
def test_the_memory_of_a_run_without_a_record_of_its_attempt_is_unknown(tmp_path, capsys):
    settings = dataclasses.replace(config(tmp_path, rounds=1), agents=("sorl",))
    members = compare.make_members(settings)
    for member in members:
        make_run(member)
    (members[0].directory / "attempt.json").unlink()
    assert compare.main(settings)[0]["peak_bytes"] == 3 * 2**20
    (members[1].directory / "attempt.json").unlink()
    assert compare.main(settings)[0]["peak_bytes"] is None
    assert "| - |\n" in capsys.readouterr().out


@pytest.mark.usefixtures("free_of_cost")
def test_a_run_whose_losses_became_non_finite_is_left_out(tmp_path, monkeypatch, capsys):
    settings = config(tmp_path, rounds=1)
    for number, member in enumerate(compare.make_members(settings)):
        make_run(member, final=0.5)
        if number in (1, 2):  # fql's first seed and sorl's second one
            (member.directory / "evaluation.json").unlink()
            write_bad_seeds(member.directory, {member.seed: 7})
    table = compare.main(settings)
    assert [(row["agent"].split()[0], row["seeds"], row["final"]) for row in table] == [
        ("sorl", 1, 0.5),
        ("fql", 1, 0.5),
    ]
    assert f"sorl on {TASK}, seed 2, is left out: its losses became non-finite." in capsys.readouterr().out
    words = ["--agents", *settings.agents, "--seeds", "1", "2", "--options", TINY, "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["compare", *words, "--rounds", "1"])
    assert compare.command() == 1


def test_runs_without_evaluations_are_refused_before_the_training(tmp_path):
    without = dataclasses.replace(config(tmp_path), options=f"{TINY} --evaluation.interval 0")
    with pytest.raises(ValueError, match="sorl is not evaluated during training; give another --evaluation.interval"):
        compare.make_members(without)


@pytest.mark.usefixtures("free_of_cost")
def test_a_comparison_goes_on_from_the_table_of_another_machine(tmp_path, capsys):
    first = dataclasses.replace(config(tmp_path / "first", rounds=1), seeds=(1,))
    for member in compare.make_members(first):
        make_run(member, final=0.5)
    before = compare.main(first)
    table = tmp_path / "earlier.json"
    (tmp_path / "first" / "comparison.json").rename(table)
    shutil.rmtree(tmp_path / "first")

    both = config(tmp_path / "second", rounds=1, earlier=(table,))
    for member in compare.make_members(both):
        if member.seed == 2:
            make_run(member, final=0.7)
    after = compare.main(both)
    assert "2 of 2 runs finished" in capsys.readouterr().err
    assert [(row["seeds"], row["final"]) for row in before] == [(1, 0.5), (1, 0.5)]
    assert [(row["seeds"], row["final"]) for row in after] == [(2, pytest.approx(0.6))] * 2
    rows = json.loads((tmp_path / "second" / "comparison.json").read_text())["rows"]
    old = json.loads(table.read_text())["rows"]
    assert [row for row in rows if row["seed"] == 1] == old and len(rows) == 2 * len(old)

    again = compare.main(dataclasses.replace(first, out=tmp_path / "third", earlier=(table,)))
    assert [row["final"] for row in again] == [0.5, 0.5] and (tmp_path / "third" / "comparison.csv").exists()

    with pytest.raises(ValueError, match="was made with options '--agent.* give the same, or leave it out"):
        compare.main(dataclasses.replace(both, options="--updates 30"))
    table.write_text(json.dumps({"preset": both.preset, "options": both.options, "rows": [{"agent": "sorl"}]}))
    with pytest.raises(
        ValueError, match="earlier.json has rows without agent, task, .*; restore it from a copy, or leave"
    ):
        compare.main(both)


def test_a_run_with_other_options_is_not_taken_for_one_of_these(tmp_path):
    (member, *_) = compare.make_members(config(tmp_path))
    make_run(member)
    other = compare.Config(agents=("sorl",), seeds=(1,), out=tmp_path)
    with pytest.raises(ValueError, match=r"has other options \(agent.critic_hidden_sizes, .*updates\)"):
        compare.train_missing(other, compare.make_members(other))


def test_a_run_that_fails_is_named_after_the_others_are_done(tmp_path, monkeypatch):
    settings = config(tmp_path)
    bad, good, *_ = members = compare.make_members(settings)[:2]
    make_run(good)
    monkeypatch.setattr(Attempt, "process", lambda attempt: subprocess.Popen([sys.executable, "-c", "exit(3)"]))
    with pytest.raises(RuntimeError, match=r"1 runs failed; read log.txt in \S*sorl\S*seed-1, and run it again"):
        compare.train_missing(settings, members)
    assert not (bad.directory / "config.json").exists()


def test_a_comparison_of_which_a_run_failed_ends_with_1(monkeypatch, capsys):
    def fail(config):
        raise compare.FailedRuns("1 runs failed.")

    monkeypatch.setattr(compare, "main", fail)
    monkeypatch.setattr(sys, "argv", ["compare"])
    assert compare.command() == 1
    assert capsys.readouterr().err == "error: 1 runs failed.\n"


@pytest.mark.slow
def test_help_names_every_option():
    command = [sys.executable, compare.__file__, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--agents" in shown and "--jobs" in shown and "--out" in shown
