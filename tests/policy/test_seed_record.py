"""A training seed whose losses became non-finite is left out afterwards, and used only where it is asked for."""

import dataclasses
import json
import shutil

import jax
import pytest

from sorl import Normalisation, Policy, load_policy, load_run, plots
from sorl.config.options import EvaluationConfig, TrainConfig
from sorl.config.population import Varied
from sorl.policy import bad_seeds, policy_path
from sorl.policy.seed_record import write_bad_seeds
from sorl.report.runs import read_runs
from sorl.runs import run as runs
from sorl.runs.metrics import MetricLog

from .. import synthetic


def make_run(directory, steps, *, record, population=()):
    """A run whose policies are of these updates, by seed; `record` is that of bad seeds, None as in version 0.1.0."""
    seeds = (3,) if population else tuple(steps)
    config = TrainConfig(
        agent=synthetic.agent(), seeds=seeds, population=population, evaluation=EvaluationConfig(interval=10)
    )
    runs.create(directory, config)
    networks = jax.jit(lambda key: config.agent.policy(config.agent.init(3, 2, key=key)))(jax.random.key(0))
    for seed, step in steps.items():
        member, versions = config.members[seed], {"data": {"source": "generated", "episodes": 9}}
        provenance = {"step": step, "versions": versions} | member.columns()
        Policy(config.agent.actor, networks, Normalisation.identity(3, 2), provenance).save(
            policy_path(directory, seed, member.kind)
        )
    if record is not None:
        write_bad_seeds(directory, record)
    return directory


@pytest.mark.parametrize("record", [None, {0: 17}])
def test_a_bad_seed_is_left_out_and_used_on_request_with_its_own_step(tmp_path, record):
    directory = make_run(tmp_path / "run", {0: 10, 4: 30, 5: 30}, record=record)
    run = load_run(directory)
    assert (run.step, run.bad_seeds, list(run.chosen(None)), list(run.chosen([0]))) == (30, (0,), [4, 5], [0])
    assert (run.step_of(0), run.step_of(4)) == (10, 30)
    assert run.left_out(None) == (
        "Left out because losses became non-finite in training: seed 0 (policy of update 10); name a seed to use it "
        "all the same."
    )
    assert run.left_out([0]) == ""
    assert load_policy(directory).provenance["seed"] == 4
    with pytest.warns(UserWarning, match=r"The losses of seed 0 in .*run became non-finite, so its policy is older"):
        assert load_policy(directory, seed=0).provenance["step"] == 10


def test_a_good_seed_without_its_policy_is_not_left_out_silently(tmp_path):
    directory = make_run(tmp_path / "run", {0: 10, 4: 30, 5: 30}, record={0: 17})
    policy_path(directory, 0).unlink()  # losses may become non-finite before the first checkpoint
    assert list(load_run(directory).chosen(None)) == [4, 5]
    policy_path(directory, 4).unlink()
    with pytest.raises(ValueError, match=r"run has no policy of seed 4; restore it .* --resume, .* with --seeds\.$"):
        load_run(directory).chosen(None)
    assert list(load_run(directory).chosen([5])) == [5]


@pytest.mark.parametrize("population", [(), (Varied("agent.discount", (0.9, 0.99)),)])
def test_the_next_policy_is_not_taken_for_the_lowest_ones(tmp_path, population):
    kind = "member" if population else "seed"
    directory = make_run(tmp_path / "run", {0: 30, 1: 30}, record={}, population=population)
    policy_path(directory, 0, kind).unlink()
    with pytest.raises(ValueError, match=rf"run has no policy of {kind} 0; restore it .* name one of the {kind}s 1\.$"):
        load_policy(directory)
    assert load_policy(directory, seed=1).provenance[kind] == 1
    write_bad_seeds(directory, {0: 17})  # losses may become non-finite before the first checkpoint
    assert load_policy(directory).provenance[kind] == 1
    (directory / "config.json").unlink()  # policies alone, copied to where they act
    write_bad_seeds(directory, {})
    assert load_policy(directory).provenance[kind] == 1


def test_a_policy_of_another_seed_is_refused(tmp_path):
    directory = make_run(tmp_path / "run", {4: 30, 5: 30}, record={})
    shutil.copy(policy_path(directory, 4), policy_path(directory, 5))
    with pytest.raises(ValueError, match="policy-seed-5.sorl is a policy of another run: its seed is 4 instead of 5; "):
        load_run(directory)


@pytest.mark.parametrize("record", [{}, {"step": 30, "versions": {}}, {"step": 30, "versions": 3}])
def test_a_policy_without_the_record_of_its_run_is_refused(tmp_path, record):
    directory = make_run(tmp_path / "run", {4: 30}, record={})
    path = policy_path(directory, 4)
    dataclasses.replace(load_policy(path), provenance=record).save(path)
    with pytest.raises(ValueError, match=r"policy-seed-4.sorl has no record of its run \(.*\), .*; restore the file"):
        load_run(directory)


def test_members_of_a_population_are_not_called_seeds(tmp_path):
    population = (Varied("agent.discount", (0.9, 0.99)),)
    directory = make_run(tmp_path / "run", {0: 10, 1: 30}, record={0: 17}, population=population)
    assert "training: member 0 (policy of update 10); name a member to" in load_run(directory).left_out(None)
    with pytest.warns(UserWarning, match="The losses of member 0 in .*run became non-finite"):
        load_policy(directory, seed=0)
    with pytest.raises(ValueError, match="run has no policy of member 3; it has those of 0, 1"):
        load_policy(directory, seed=3)
    write_bad_seeds(directory, {0: 17, 1: 17})
    with pytest.raises(ValueError, match="has no good member: the losses of all .* or name a member to use its last"):
        load_run(directory).chosen(None)
    with pytest.raises(ValueError, match="has no good member: the losses of all .* or name one of the members 0, 1 to"):
        load_policy(directory)


def test_a_policy_that_is_older_since_training_was_killed_is_not_a_bad_one(tmp_path):
    directory = make_run(tmp_path / "run", {0: 10, 4: 30}, record={})
    assert load_run(directory).bad_seeds == ()
    assert load_policy(directory).provenance["seed"] == 0


def test_a_run_without_a_good_seed_is_one_sentence(tmp_path):
    directory = make_run(tmp_path / "run", {0: 10, 4: 10}, record={0: 12, 4: 11})
    with pytest.raises(ValueError, match="has no good training seed: the losses of all became non-finite"):
        load_run(directory).chosen(None)
    with pytest.raises(ValueError, match="has no good training seed.*or name one of the seeds 0, 4"):
        load_policy(directory)


@pytest.mark.parametrize("content", ["", "{", "[0]", "null", '{"x": 1}', '{"0": "soon"}'])
def test_a_damaged_record_is_one_sentence_with_its_name(tmp_path, content):
    directory = make_run(tmp_path / "run", {0: 10}, record={})
    (directory / "bad_seeds.json").write_text(content)
    with pytest.raises(ValueError, match=r"^[^\n]*bad_seeds\.json [^\n]*; continue the run with --res") as error:
        bad_seeds(directory)
    assert "\n" not in str(error.value)


def test_training_writes_a_damaged_record_anew(tmp_path):
    (tmp_path / "bad_seeds.json").write_text("{")
    write_bad_seeds(tmp_path, {4: 17})
    assert json.loads((tmp_path / "bad_seeds.json").read_text()) == {"4": 17}


def test_reports_and_plots_leave_it_out(tmp_path, capsys):
    directory = make_run(tmp_path / "run", {0: 10, 4: 30}, record={0: 17})
    with MetricLog(directory) as log:
        for seed, success in ((0, 0.0), (4, 1.0)):
            figures = {"success": success, "return": -1.0, "episode_length": 2.0}
            log.write(10, seed, {f"evaluation/{name}/M4N1": value for name, value in figures.items()})
    row = {"inference_steps": 4, "candidates": 1, "episodes": 10, "data_source": "generated", "data_episodes": 9}
    rows = [{"training_seed": seed, "successes": seed, "env": "cube"} | row for seed in (0, 4)]
    (directory / "evaluation.json").write_text(json.dumps({"rows": rows}))
    (run,) = read_runs([directory])
    assert run.bad_seeds == (0,)
    assert {row["seed"] for row in run.metrics} == {row["training_seed"] for row in run.table} == {4}
    plots.main(plots.Config(directory, tmp_path / "run.png"))
    assert "Left out because losses became non-finite in training: seed 0." in capsys.readouterr().out
    (directory / "evaluation.json").write_text(json.dumps({"rows": rows[:1]}))
    with pytest.raises(ValueError, match="has no rows of seeds whose losses stayed finite"):
        plots.main(plots.Config(directory, tmp_path / "run.png"))
