"""The command: what it says of a policy with a critic and of one without, its files, and what it refuses."""

import dataclasses
import html
import json
import sys

import numpy as np
import pytest

from sorl import Bc, Policy, load_logs
from sorl.agents import Budget
from sorl.assess import __main__ as command, subject
from sorl.assess.fitted_q import FitOptions
from sorl.assess.record import read_assessment
from sorl.assess.subject import load_subject
from sorl.config import presets
from sorl.config.json_form import to_json
from sorl.config.options import DataConfig
from sorl.data.normalisation import Normalisation
from sorl.policy import load_policy
from sorl.report import __main__ as report
from sorl.runs import run as runs
from sorl.runs.versions import record_versions

from .. import recorded_files, synthetic
from ..random_networks import make_policy


FIT = FitOptions(updates=10, hidden_sizes=(8,), batch_size=8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Logs, a run of SORL with them, and a policy file of BC."""
    directory = tmp_path_factory.mktemp("assess")
    synthetic.write_logs(directory / "logs.npz", trajectories=12)
    units = load_logs(directory / "logs.npz").normalisation
    agent = synthetic.agent(hidden_sizes=(8,), critic_hidden_sizes=(8,), discount=0.9)
    config = dataclasses.replace(presets.own_logs(directory / "logs.npz"), agent=agent, seeds=(4,))
    runs.create(directory / "RUN", config)
    record_versions(directory / "RUN", config, {"source": "own logs", "episodes": 11})
    policy = Policy(agent.actor, make_policy(agent, 3, 2, seed=0), units)
    runs.save_policies(directory / "RUN", config, {4: policy}, 7)
    cloning = Bc(hidden_sizes=(8,))
    about = {"agent": to_json(cloning)}
    Policy(cloning.actor, make_policy(cloning, 3, 2, seed=0), units, about).save(directory / "bc.sorl")
    return directory


def assess(run, **fields):
    return command.main(command.Config(run, **({"fit": FIT, "states": 40, "quiet": True} | fields)))


@pytest.fixture(scope="module")
def assessed(place):
    """The assessment of the run at two budgets, which wrote its file and pictures."""
    return assess(place / "RUN", inference_steps=(1, 2), pictures=True)


def test_an_assessment_is_in_its_file_or_in_the_text_if_one_cannot_be_written(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "a" / "assessment.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        assess(place / "RUN", out=tmp_path / "a")
    assert "Sorl" in capsys.readouterr().out

    def refuse(text):
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", refuse)
    with pytest.raises(BrokenPipeError):
        assess(place / "RUN", out=tmp_path / "b")
    assert read_assessment(tmp_path / "b" / "assessment.json") is not None


def test_a_run_is_judged_on_its_own_held_out_episodes(place, assessed):
    assert (assessed.policy.seed, assessed.policy.step, assessed.policy.algorithm) == (4, 7, "Sorl")
    assert (assessed.data.episodes, assessed.data.held_out_episodes) == (11, 1)
    assert (assessed.data.discount, assessed.data.discount_from) == (0.9, "the agent's")
    assert assessed.data.agents_discount == 0.9
    assert [one.budget for one in assessed.budgets] == [Budget(1), Budget(2)]
    names = [one.critic for one in assessed.calibrations]
    assert names == ["fitted, the behaviour", "fitted, M1N1", "fitted, M2N1", "own, M1N1", "own, M2N1"]
    for one in assessed.budgets:
        assert one.over_estimation == one.own_value - one.fitted.value
        assert one.gain == pytest.approx(one.fitted.value - assessed.behaviour.fitted.value, abs=1e-4)
        assert one.outside == (0.0, 0.0) and len(one.neighbour_distance) == 2


def test_the_record_of_a_table_by_an_earlier_version_is_not_judged_by_its_columns(place):
    bc, own = load_policy(place / "bc.sorl"), load_logs(place / "logs.npz")
    policy = dataclasses.replace(bc, provenance=bc.provenance | {"versions": {"data": own.provenance}})
    table = dataclasses.replace(own, provenance=own.provenance | {"columns": {"rewards": "r"}})
    assert subject._caution(policy, table) == ""


def test_held_out_episodes_that_were_trained_on_are_told(place, tmp_path):
    def caution(trained, **options):
        policy = dataclasses.replace(bc, provenance=bc.provenance | {"versions": {"data": trained}})
        policy.save(tmp_path / "policy.sorl")
        given = DataConfig(path=place / "logs.npz", **options)
        return load_subject(tmp_path / "policy.sorl", seed=None, env=None, data=given, discount=None).caution

    bc, own = load_policy(place / "bc.sorl"), load_logs(place / "logs.npz").provenance
    assert caution(own) == "" == caution({"source": "own logs"})
    named = own | {"about": {"held_out": [0]}}
    for other in (caution(own, validation_fraction=0.5), caution(own | {"validation": None}), caution(named)):
        assert other.startswith("The policy's training held out other episodes of these data, so it has seen some")
    for changed in ({"sha256": "0"}, {"columns": {"rewards": "another"}}):
        assert caution(own | changed) == "These data are not those that the policy was trained on."
    with pytest.raises(ValueError, match="give --data.no-sparse-rewards --data.reward-scale 0.1, as in its training"):
        caution(own | {"reward_scale": 0.1})
    assert caution(own | {"reward_scale": 0.1}, reward_scale=0.1) == ""


@pytest.mark.filterwarnings("ignore:Actions of .* leave the run's range")
def test_columns_in_another_order_than_in_training_are_refused(place, tmp_path):
    path = recorded_files.write_table(tmp_path / "arm.csv", recorded_files.episodes())
    trained = {"observation_names": ["y", "x", "z"], "action_names": ["u", "v"]}
    bc = load_policy(place / "bc.sorl")
    dataclasses.replace(bc, provenance=bc.provenance | {"versions": {"data": trained}}).save(tmp_path / "policy.sorl")
    with pytest.raises(
        ValueError, match="arm.csv has x in column 0 of its observations, where the policy's training has y; give"
    ):
        assess(tmp_path / "policy.sorl", data=DataConfig(path=path))


def test_the_numbers_that_need_no_fit_are_those_of_the_logs(place, assessed):
    subject = load_subject(place / "RUN", seed=None, env=None, data=DataConfig(), discount=None)
    held_out = subject.held_out
    actions = np.asarray(held_out.actions)[np.asarray(held_out.starts)]
    jerk = np.linalg.norm(np.diff(actions, n=3, axis=0), axis=1).mean()
    assert assessed.behaviour.jerk == pytest.approx(jerk, rel=1e-5)
    assert assessed.data.held_out_states == len(held_out)


def test_its_files_hold_it_and_a_report_shows_it(place, assessed, tmp_path):
    path = place / "RUN" / "assessment.json"
    assert read_assessment(path) == assessed
    assert sorted(found.name for found in (place / "RUN").glob("*.png")) == [
        "assessment-calibration.png",
        "assessment-distance.png",
        "assessment-values.png",
    ]
    page = report.main(report.Config((place / "RUN",), out=tmp_path / "report")).read_text()
    page = html.unescape(page)
    assert "Without a simulator" in page and f"{assessed.budgets[0].energy_score:.3f}" in page
    assert all(note[:60] in page for note in assessed.notes)


def test_options_of_the_data_hold_for_the_runs_own_logs(place):
    data = DataConfig(validation_fraction=0.5)
    subject = load_subject(place / "RUN", seed=None, env=None, data=data, discount=None)
    assert subject.data.provenance["validation"]["episodes"] == 6  # of the 12 logged


def test_a_fit_without_layers_is_refused():
    with pytest.raises(ValueError, match=r"hidden_sizes \(0,\) makes no network; give at least one hidden layer"):
        FitOptions(hidden_sizes=(0,))


def test_a_policy_without_a_critic_says_what_is_left_out(place, capsys):
    found = assess(place / "bc.sorl", data=DataConfig(path=place / "logs.npz"))
    assert found.budgets[0].own_value is None and found.budgets[0].over_estimation is None
    assert [one.critic for one in found.calibrations] == ["fitted, the behaviour", "fitted, M1N1"]
    assert found.data.discount_from == "the usual one, as the policy's record has none"
    said = capsys.readouterr().out
    assert "The policy holds no critic (Bc acts without one), so its own values, their over-estimation" in said
    assert "Wrote" not in said


def test_the_same_seed_gives_the_same_result_as_json(place, capsys):
    data, out = DataConfig(path=place / "logs.npz"), place / "twice"
    one = assess(place / "bc.sorl", data=data, json=True, out=out, discount=0.5)
    assert json.loads(capsys.readouterr().out) == json.loads((out / "assessment.json").read_text())
    assert one == assess(place / "bc.sorl", data=data, discount=0.5)
    assert (one.data.discount, one.data.discount_from) == (0.5, "as given")


def test_what_does_not_fit_is_refused_in_one_sentence(place, tmp_path):
    logs = DataConfig(path=place / "logs.npz")
    with pytest.raises(ValueError, match=r"bc\.sorl is a policy without the options of its run.*; give --data LOGS"):
        assess(place / "bc.sorl")
    with pytest.raises(ValueError, match=r"beside which no pictures are written; give a directory as --out\.$"):
        assess(place / "bc.sorl", data=logs, pictures=True)
    with pytest.raises(ValueError, match=r"hold no held-out episodes.*; give a --data\.validation-fraction above 0"):
        assess(place / "bc.sorl", data=dataclasses.replace(logs, validation_fraction=0.0))
    with pytest.raises(
        ValueError, match=r"give --data\.no-sparse-rewards --data\.reward-scale 1, as in its training\.$"
    ):
        assess(place / "RUN", data=dataclasses.replace(logs, reward_scale=10.0))
    agent = Bc(hidden_sizes=(8,))
    for sizes, words in (
        ((4, 2), "The observations of .* have size 3, those of the run 4"),
        ((3, 1), "actions of .* 1;"),
    ):
        path = tmp_path / f"{sizes[0]}{sizes[1]}.sorl"
        units = Normalisation.identity(*sizes)
        units = dataclasses.replace(units, action_low=100 * units.action_low, action_high=100 * units.action_high)
        Policy(agent.actor, make_policy(agent, *sizes, seed=0), units).save(path)
        with pytest.raises(ValueError, match=words):
            assess(path, data=logs)
    with pytest.raises(ValueError, match="discount is 1.5; give a number from 0 to 1"):
        command.Config(place / "RUN", discount=1.5)
    with pytest.raises(ValueError, match="cannot act with 3 inference steps"):
        assess(place / "bc.sorl", data=logs, inference_steps=(3,))


def test_a_file_of_another_format_is_refused(place, tmp_path):
    path = tmp_path / "assessment.json"
    path.write_text(json.dumps({"format": 2}))
    with pytest.raises(ValueError, match=r"has format 2 instead of 1; write it again with python -m sorl\.assess\.$"):
        read_assessment(path)
