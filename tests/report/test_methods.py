"""The names of methods: what sets the runs of a report apart, and what does not."""

import dataclasses
import json

from sorl.agents import Bc, Sorl
from sorl.config.options import DataConfig, EvaluationConfig
from sorl.report.runs import read_runs

from .made_up import CUBE, EVALUATION, SCENE, make_run


def test_options_that_set_runs_apart_on_a_task_make_methods_and_presets_of_tasks_do_not(tmp_path):
    agents = {
        "a": (CUBE, Sorl(discretization_steps=4, backprop_steps=4)),
        "b": (CUBE, Sorl(discretization_steps=4, backprop_steps=2)),
        "c": (SCENE, Sorl(discretization_steps=4, backprop_steps=4, q_coefficient=3.0)),
        "d": (CUBE, Bc()),
    }
    made = read_runs([make_run(tmp_path / name, env=env, agent=agent) for name, (env, agent) in agents.items()])
    found = [run.method for run in made]
    assert found == ["sorl, backprop steps 4", "sorl, backprop steps 2", "sorl, backprop steps 4", "bc"]


def test_switches_are_named_by_what_they_switch(tmp_path):
    agents = [Sorl(discretization_steps=4, backprop_steps=4, act_with_average=on) for on in (True, False)]
    made = read_runs([make_run(tmp_path / str(i), agent=agent) for i, agent in enumerate(agents)])
    assert [run.method for run in made] == ["sorl, act with average", "sorl, no act with average"]


def test_options_that_change_no_result_make_no_methods(tmp_path):
    one, data = make_run(tmp_path / "a"), DataConfig(residence="host")
    options = {"checkpoint_interval": 7, "log_interval": 3, "seed_mapping": "vmap", "data": data}
    found = read_runs([one, make_run(tmp_path / "b", seeds=(3,), final=(0.1,), **options)])
    assert [run.method for run in found] == ["sorl", "sorl"]


def test_other_scores_make_other_methods_and_more_episodes_or_budgets_do_not(tmp_path):
    changes = {
        "usual": {},
        "precise": {"episodes": 99, "final_episodes": 9, "final_candidates": (1, 2), "inference_steps": (4, 1)},
        "fast": {"workers": 1, "step_timeout": 9.0, "overlap": False},
        "post": {"success_timing": "post"},
        "more": {"candidates": (8,)},
        "often": {"interval": 5},
        "never": {"interval": 0},
    }
    evaluations = {name: dataclasses.replace(EVALUATION, **change) for name, change in changes.items()}
    made = [
        make_run(tmp_path / name, seeds=(i,), final=(0.5,), evaluation=evaluations[name])
        for i, name in enumerate(changes)
    ]
    found = {run.directory.name: run.method for run in read_runs(made)}
    usual = "sorl, candidates 1, evaluation interval 10, success timing pre"
    assert found["usual"] == found["precise"] == found["fast"] == usual
    assert found["post"] == "sorl, candidates 1, evaluation interval 10, success timing post"
    assert found["more"] == "sorl, candidates 8, evaluation interval 10, success timing pre"
    assert found["often"] == "sorl, candidates 1, evaluation interval 5, success timing pre"
    assert found["never"] == "sorl, success timing pre"
    assert [run.method for run in read_runs(made[:3])] == ["sorl"] * 3


def test_a_budget_that_is_named_is_the_default_of_the_same_value(tmp_path):
    named = dataclasses.replace(EVALUATION, inference_steps=None, candidates=(1,))
    made = (
        make_run(tmp_path / "a", agent=Bc()),
        make_run(tmp_path / "b", agent=Bc(), seeds=(3,), final=(0.1,), evaluation=named),
    )
    assert [run.method for run in read_runs(made)] == ["bc", "bc"]


def test_runs_on_other_logs_are_other_methods_and_the_same_logs_at_two_places_are_one(tmp_path):
    made = []
    for i, (path, sha256) in enumerate(
        (("a/expert.npz", "1" * 64), ("copy.npz", "1" * 64), ("random.npz", "2" * 64), ("b/expert.npz", "3" * 64))
    ):
        data = DataConfig(path=tmp_path / path)
        made.append(make_run(tmp_path / str(i), seeds=(i,), final=(0.5,), data=data, sha256=sha256))
    assert [run.method for run in read_runs(made[:2])] == ["sorl", "sorl"]
    assert [run.method for run in read_runs(made[1:3])] == ["sorl, data copy.npz", "sorl, data random.npz"]
    found = [run.method for run in read_runs(made)]
    assert found == [
        f"sorl, data {name}" for name in ("expert.npz 11111111",) * 2 + ("random.npz", "expert.npz 33333333")
    ]
    # Without a record of the data, they are known by their path.
    for run in made:
        (run / "versions.json").unlink()
    found = [run.method for run in read_runs(made[1:3])]
    assert found == ["sorl, data copy.npz", "sorl, data random.npz"]


def test_data_of_a_later_phase_make_another_method(tmp_path):
    made = [make_run(tmp_path / str(i), seeds=(i,), final=(0.5,), sha256="1" * 64) for i in range(2)]
    record = json.loads((made[1] / "versions.json").read_text())
    phase = {"from_step": 20, "data": record["data"] | {"sha256": "2" * 64}}
    (made[1] / "versions.json").write_text(json.dumps(record | {"phases": [phase]}))
    assert [run.method for run in read_runs(made)] == ["sorl, data - 11111111", "sorl, data - 11111111+22222222@20"]


def test_the_same_logs_without_an_environment_are_one_task(tmp_path):
    evaluation, made = EvaluationConfig(interval=0), []
    for seed, (name, digit) in enumerate((("logs.npz", "1"), ("copy.npz", "1"), ("other.npz", "2"))):
        options = {"data": DataConfig(path=tmp_path / name), "evaluation": evaluation, "sha256": digit * 64}
        made.append(make_run(tmp_path / f"{seed}", env=None, agent=Bc(), seeds=(seed,), final=(0.5,), **options))
    # A run on the same data in an environment has that task.
    data = DataConfig(path=tmp_path / "played.npz")
    played = make_run(tmp_path / "played", agent=Bc(), data=data, sha256="1" * 64)
    found = read_runs([played, *made])
    assert [run.task for run in found] == [CUBE, *(str(tmp_path / f"{name}.npz") for name in ("logs", "logs", "other"))]
    assert {run.method for run in found} == {"bc"}


def test_generated_data_are_named_by_their_options(tmp_path):
    made = [
        make_run(tmp_path / str(n), data=DataConfig(episodes=n), sha256=f"{n}" * 32, seeds=(n,), final=(0.5,))
        for n in (10, 20)
    ]
    assert [run.method for run in read_runs(made)] == ["sorl, episodes 10", "sorl, episodes 20"]


def test_tables_of_other_decisions_are_not_of_one_method(tmp_path):
    own = {"env": CUBE, "success_timing": "pre", "noise_scale": 1.0, "policy_conditioning": None, "verifier": None}
    changes = {"bare": {}, "usual": own, "min": own | {"verifier": "min", "noise_scale": 0.5}}
    changes["post"] = own | {"success_timing": "post"}
    for i, (name, columns) in enumerate(changes.items()):
        path = make_run(tmp_path / name, seeds=(i,), final=(0.5,)) / "evaluation.json"
        path.write_text(json.dumps({"rows": [row | columns for row in json.loads(path.read_text())["rows"]]}))
    (make_run(tmp_path / "none", seeds=(9,), final=(0.5,)) / "evaluation.json").unlink()
    found = {run.directory.name: run.method for run in read_runs([tmp_path / name for name in (*changes, "none")])}
    assert found["bare"] == found["usual"] == "sorl, table as usual"
    assert found["min"] == "sorl, table noise scale 0.5 and verifier min"
    assert (found["post"], found["none"]) == ("sorl, table success timing post", "sorl")
