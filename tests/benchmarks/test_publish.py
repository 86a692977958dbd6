"""A published policy has its own scores: those of its update, in the environment that it was evaluated in."""

import hashlib
import json
import os

import publish
import pytest

from sorl import load_policy
from sorl.policy import policy_path
from sorl.pretrained.index import parse
from sorl.statistics.intervals import wilson_interval

from ..reaching import forget_environment, make_run


BUDGET = {"noise_scale": 1.0, "policy_conditioning": None, "critic_conditioning": None, "verifier": None}


def row(steps, success, **changes):
    """A row of `evaluation.json` in an environment that judges success itself."""
    low, high = (None, None) if success is None else wilson_interval(sum(success), len(success))
    judged = {"success": success, "successes": success and sum(success), "success_low": low, "success_high": high}
    sizes = {"inference_steps": steps, "candidates": 1, "episodes": 4}
    about = {"training_seed": 3, "step": 2, "env": "gymnasium:Pendulum-v1", "success_timing": None}
    return sizes | BUDGET | about | judged | changes


@pytest.fixture
def run(tmp_path):
    """A run of two seeds on logs alone, of which seed 5 stopped later."""
    directory = make_run(tmp_path / "run", updates=2)
    forget_environment(directory)
    return directory


def published(run, rows, **options):
    (run / "evaluation.json").write_text(json.dumps({"rows": rows}))
    settings = {"name": "my-arm", "command": "python -m sorl.train", "description": "An arm.", "seed": 3} | options
    publish.main(publish.Config(run, out=run / "policies", **settings))
    index = run / "policies" / "index.json"
    return parse(index.read_bytes(), str(index))["my-arm"]


def test_a_policy_of_logs_alone_has_the_environment_and_scores_of_its_evaluation(run):
    others = row(1, [True] * 4, training_seed=5, step=9)
    entry = published(run, [row(1, [True, False, False, False]), others, row(2, [True, True, False, False])])
    content = (run / "policies" / "my-arm.sorl").read_bytes()
    assert (entry.file, entry.bytes, entry.sha256) == (
        "my-arm.sorl",
        len(content),
        hashlib.sha256(content).hexdigest(),
    )
    assert (entry.about["env"], entry.about["updates"], entry.about["seed"]) == ("gymnasium:Pendulum-v1", 2, 3)
    assert "success_timing" not in entry.about
    assert [(score["inference_steps"], score["success"], score["difference"]) for score in entry.scores] == [
        (1, 0.25, 0.0),
        (2, 0.5, 0.25),
    ]
    policy = load_policy(run / "policies" / "my-arm.sorl")
    assert policy.scores == [dict(score) for score in entry.scores]
    assert policy.digest == load_policy(policy_path(run, 3)).digest


def test_differences_are_to_the_least_budget_in_whatever_order_they_were_evaluated(run):
    four, one = row(4, [True, True, False, False]), row(1, [True, False, False, False])
    scores = published(run, [row(1, [False] * 4, candidates=8), four, one]).scores
    assert [(score["inference_steps"], score["candidates"], score["difference"]) for score in scores] == [
        (1, 1, 0.0),
        (4, 1, 0.25),
        (1, 8, -0.25),
    ]


def test_a_member_of_a_population_has_its_own_scores(run):
    policy_path(run, 3).rename(policy_path(run, 3, "member"))
    others = row(1, [True] * 4, member=0)
    entry = published(run, [others, row(1, [True, False, False, False], member=3, training_seed=0)])
    assert [score["success"] for score in entry.scores] == [0.25] and entry.about["seed"] == 0


def test_the_timing_of_success_is_that_of_the_evaluation(run):
    assert published(run, [row(1, [True] * 4, success_timing="post")]).about["success_timing"] == "post"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(1, [True] * 4, step=1)], "has scores of update 1, and the policy of seed 3 is of update 2; evaluate it"),
        ([row(1, [True] * 4), row(2, [True] * 4, step=9)], "has scores of update 9, and the policy of seed 3 is of"),
        ([row(1, [True] * 4, training_seed=5)], "has no row of seed 3; evaluate it with python -m sorl.evaluate"),
        ([row(1, [True] * 4), row(2, None)], "has rows without a success; publish a policy whose environment reports"),
        ([{"training_seed": 3}], "has rows without inference_steps, .*; evaluate it"),
    ],
)
def test_scores_that_are_not_the_policys_own_are_refused_and_nothing_is_written(run, rows, words):
    with pytest.raises(ValueError, match=words):
        published(run, rows)
    assert not (run / "policies").exists()


def test_an_index_that_is_none_is_refused_and_another_keeps_its_entries(run):
    (run / "policies").mkdir()
    index = run / "policies" / "index.json"
    index.write_text("{}")
    with pytest.raises(ValueError, match="index.json is no index of pretrained policies"):
        published(run, [row(1, [True] * 4)])
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(ValueError, match=r"index.json is empty, .* \(it is no file\)"):
        published(run, [row(1, [True] * 4)])
    assert [path.name for path in index.parent.iterdir()] == ["index.json"]
    index.unlink()
    published(run, [row(1, [True] * 4)])
    first = json.loads(index.read_text())["policies"]["my-arm"]
    published(run, [row(1, [True] * 4)], name="my-other-arm")
    assert json.loads(index.read_text())["policies"].keys() == {"my-arm", "my-other-arm"}
    assert json.loads(index.read_text())["policies"]["my-arm"] == first


def test_another_file_of_the_policys_name_is_not_replaced(run):
    (run / "policies").mkdir()
    path = run / "policies" / "my-arm.sorl"
    path.write_text("notes")
    with pytest.raises(FileExistsError, match="my-arm.sorl exists and is no earlier result of this command; give"):
        published(run, [row(1, [True] * 4)])
    assert path.read_text() == "notes" and [*path.parent.iterdir()] == [path]
