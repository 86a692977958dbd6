"""The page of a sweep is that of its runs, of those that have begun."""

import csv
import dataclasses
import json
import shlex

import pytest

from sorl.agents import Bc, Rebrac, registry
from sorl.agents.modules import import_modules
from sorl.config.options import DataConfig
from sorl.report import __main__ as report
from sorl.sweep import results
from sorl.sweep.grid import Grid, expand
from sorl.sweep.plan import write_plan

from .. import own_agent, synthetic
from .made_up import CUBE, make_run
from .test_command import read_page


AGENTS = {"bc": Bc(), "rebrac": Rebrac()}


@pytest.fixture
def sweep(tmp_path):
    """The directory of a sweep of two agents, of which nothing has begun, and the directories of their runs."""
    out = tmp_path / "a sweep"
    runs = write_plan(out, grid := Grid(agents=tuple(AGENTS), envs=(CUBE,), seeds=(1,)), expand(grid), extend=False)
    return out, {run.agent: out / run.directory for run in runs}


def begin(directories, agent, success):
    (directories[agent] / "config.json").unlink(missing_ok=True)
    make_run(directories[agent], seeds=(1,), final=(success,), agent=AGENTS[agent])


def test_the_page_of_a_sweep_holds_the_runs_that_have_begun(sweep, tmp_path):
    directory, directories = sweep
    with pytest.raises(ValueError, match=f"^No run of the sweep in {directory} has begun; continue it with python -m"):
        report.main(report.Config((directory,), out=tmp_path / "report"))
    begin(directories, "bc", 0.2)
    _, words = read_page(report.main(report.Config((directory,), out=tmp_path / "report")))
    assert "1 method on 1 task" in words and "rebrac" not in words
    begin(directories, "rebrac", 0.8)
    _, words = read_page(report.main(report.Config((directory,), out=tmp_path / "report")))
    assert "2 methods on 1 task" in words and "0.200" in words and "0.800" in words
    assert f"python -m sorl.report {shlex.quote(str(directory))}" in words


def test_a_sweep_stands_beside_single_runs(sweep, tmp_path):
    directory, directories = sweep
    begin(directories, "bc", 0.2)
    agent = dataclasses.replace(Bc(), learning_rate=1.0)
    lone = make_run(tmp_path / "lone", seeds=(1,), final=(0.4,), agent=agent)
    _, words = read_page(report.main(report.Config((directory, lone), out=tmp_path / "report")))
    assert "2 methods on 1 task" in words and "bc, learning rate 1.0" in words


@pytest.mark.parametrize("option", ["evaluation.candidates", "evaluation.episodes"])
def test_the_page_of_a_sweep_has_the_methods_of_its_results(tmp_path, monkeypatch, option):
    out, values = tmp_path / "sweep", ("1", "8")
    grid = Grid(agents=("fql",), envs=(CUBE,), seeds=(1,), set=((option, *values),))
    planned = expand(grid)
    write_plan(out, grid, planned, extend=False)
    for one in planned:
        directory = out / one.run.directory
        (directory / "config.json").unlink(missing_ok=True)
        make_run(directory, seeds=(1,), final=(0.5,), agent=one.config.agent, evaluation=one.config.evaluation)
    monkeypatch.setattr(results, "is_finished", lambda *_, **__: True)
    text = results.write_results(out)
    _, words = read_page(report.main(report.Config((out,), out=tmp_path / "report")))
    assert "2 methods on 1 task" in words
    for method in (f"fql, {option} {value}" for value in values):
        assert f"| {method} |" in text and method in words


@pytest.mark.parametrize("env, timing, played", [(CUBE, "pre", "post"), ("gymnasium:Pendulum-v1", "", None)])
def test_the_results_state_when_success_was_judged_and_nothing_where_the_environment_judges(
    tmp_path, monkeypatch, env, timing, played
):
    out, logs = tmp_path / "sweep", tmp_path / "logs.npz"
    synthetic.write_logs(logs)
    grid = Grid(agents=("bc",), envs=(env,), seeds=(1,), options=f"--data {logs}")
    (run,) = write_plan(out, grid, expand(grid), extend=False)
    directory = make_run(out / run.directory, env=env, seeds=(1,), final=(0.4,), agent=Bc(), data=DataConfig(logs))
    table = json.loads((directory / "evaluation.json").read_text())
    # The table after training may have been made by sorl.evaluate, with another timing.
    (directory / "evaluation.json").write_text(
        json.dumps({"rows": [row | {"success_timing": played} for row in table["rows"]]})
    )
    monkeypatch.setattr(results, "is_finished", lambda *_, **__: True)
    results.write_results(out)
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {phase: {row["success_timing"] for row in rows if row["phase"] == phase} for phase in ("training", "final")}
    assert found == {"training": {timing}, "final": {played or ""}}
    assert {"success-pre-step" in row["protocol"] for row in rows} == {env == CUBE}


def test_a_table_of_other_decisions_has_another_protocol(tmp_path, monkeypatch):
    out, grid = tmp_path / "sweep", Grid(agents=("bc",), envs=(CUBE,), seeds=(1,))
    (run,) = write_plan(out, grid, expand(grid), extend=False)
    path = make_run(out / run.directory, seeds=(1,), final=(0.4,), agent=Bc()) / "evaluation.json"
    rows = json.loads(path.read_text())["rows"]
    path.write_text(json.dumps({"rows": [row | {"noise_scale": 0.5, "verifier": "min"} for row in rows]}))
    monkeypatch.setattr(results, "is_finished", lambda *_, **__: True)
    results.write_results(out)
    with (out / "results.csv").open() as file:
        found = {row["phase"]: row["protocol"] for row in csv.DictReader(file)}
    assert found["final"] == f"{found['training']}+noise-scale-0.5+verifier-min"


def test_the_results_say_how_their_intervals_are_made(tmp_path, monkeypatch):
    out, grid = tmp_path / "sweep", Grid(agents=("bc",), envs=(CUBE,), seeds=(1, 2), group=2)
    (run,) = write_plan(out, grid, expand(grid), extend=False)
    make_run(out / run.directory, seeds=(1, 2), final=(0.5, 0.5), agent=Bc())
    monkeypatch.setattr(results, "is_finished", lambda *_, **__: True)
    text = results.write_results(out)
    # Both seeds have 10 of 20 episodes, so this is Wilson's interval of 20 of 40.
    assert f"| task | method | score | 95 % interval | seeds |\n|---|---|---|---|---|\n| {CUBE} | bc | 0.500 |" in text
    assert "| 0.500 | 0.352 .. 0.648 | 2 |\n\n95 % interval: Student's t over training seeds (of success, at" in text


def test_the_results_say_how_to_make_a_page_of_an_own_agent(tmp_path, monkeypatch, capsys):
    module, out = str(own_agent.write(tmp_path)), tmp_path / "sweep"
    monkeypatch.setattr(results, "is_finished", lambda *_, **__: True)
    with own_agent.forgotten_afterwards():
        import_modules([module])
        grid = Grid(agents=("mine",), agent_module=(module,), envs=(CUBE,), seeds=(1,))
        (run,) = write_plan(out, grid, expand(grid), extend=False)
        make_run(out / run.directory, seeds=(1,), final=(0.4,), agent=registry.AGENTS["Mine"]())
        text = results.write_results(out)
    # One seed says nothing of others, so no table has an interval.
    assert "| mine | 0.400 | - |" in text
    assert capsys.readouterr().out.endswith(f"for a page: python -m sorl.report {out} --agent-module {module}\n")


def test_a_name_with_a_bar_stays_in_its_cell(tmp_path, monkeypatch):
    out, logs = tmp_path / "sweep", [tmp_path / name for name in ("a|b.npz", "c.npz")]
    for path in logs:
        synthetic.write_logs(path)
    env = "gymnasium:Pendulum-v1"
    grid = Grid(agents=("bc",), envs=(env,), seeds=(1,), set=(("data", *map(str, logs)),))
    for run in write_plan(out, grid, expand(grid), extend=False):
        make_run(out / run.directory, env=env, seeds=(1,), final=(0.4,), agent=Bc(), data=DataConfig(logs[0]))
    monkeypatch.setattr(results, "is_finished", lambda *_, **__: True)
    text = results.write_results(out)
    assert rf"| {env} | bc, data {tmp_path}/a\|b.npz | 0.400 | - | 1 |" in text
