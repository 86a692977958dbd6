"""A population: each member equals its lone run, and has its rows, policy, place in the checkpoint, and pictures."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sorl import load_policy
from sorl.agents import Bc, Iql
from sorl.config.options import DataConfig, EvaluationConfig, TrainConfig, read_config
from sorl.config.population import Varied, varying_fields
from sorl.data import load_logs
from sorl.policy import bad_seeds
from sorl.runs import run as runs
from sorl.runs.metrics import read_metrics
from sorl.train.cli import parse
from sorl.train.session import Session

from .. import synthetic
from ..bits import equal


VALUES = (0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("logs")
    synthetic.write_logs(directory / "logs.npz")
    return load_logs(directory / "logs.npz", validation_fraction=0.25)


def _config(**fields: Any) -> TrainConfig:
    usual = {
        "agent": synthetic.tiny(Iql),
        "data": DataConfig(path=Path("logs.npz")),
        "evaluation": EvaluationConfig(interval=0),
    }
    lengths = {"seeds": (0, 7), "updates": 20, "batch_size": 8, "log_interval": 10, "checkpoint_interval": 10}
    return TrainConfig(env=None, **(usual | lengths | fields))


def _population(**fields: Any) -> TrainConfig:
    return _config(population=(Varied("agent.expectile", VALUES),), **fields)


def _run(config, directory, data, *, resume=False):
    if not resume:
        runs.create(directory, config)
    return Session(config, directory, data, resume=resume, quiet=True).run()


def _networks(path) -> Any:
    return load_policy(path).networks


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("population") / "run"
    _run(_population(), directory, data)
    return directory


def test_each_member_equals_its_lone_run(tmp_path, data, trained):
    config, rows = _population(), read_metrics(trained)
    assert read_config(trained / "config.json").population == config.population
    members = config.members
    assert [(member.seed, member.settings) for member in members.values()] == [
        (seed, {"agent.expectile": value}) for value in VALUES for seed in (0, 7)
    ]
    for number in (0, 3, 5):
        member, lone = members[number], tmp_path / str(number)
        _run(_config(agent=member.agent, seeds=(member.seed,)), lone, data)
        own = trained / f"policy-member-{number}.sorl"
        assert equal(_networks(own), _networks(runs.policy_path(lone, member.seed)))
        assert load_policy(own).digest == load_policy(runs.policy_path(lone, member.seed)).digest
        expected = [{**row, "member": number, **member.settings} for row in read_metrics(lone)]
        assert [row for row in rows if row["member"] == number] == expected
    assert not equal(_networks(trained / "policy-member-1.sorl"), _networks(trained / "policy-member-3.sorl"))


def test_members_are_named_in_every_file(trained):
    with (trained / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[:4] == ["step", "member", "seed", "agent.expectile"]
    assert [(row["step"], row["member"], row["seed"], row["agent.expectile"]) for row in table[6:9]] == [
        ("20", "0", "0", "0.5"), ("20", "1", "7", "0.5"), ("20", "2", "0", "0.7")
    ]  # fmt: skip
    run = runs.load_run(trained)
    assert list(run.policies) == list(range(6)) and bad_seeds(trained) == set()
    provenance = run.policies[3].provenance
    assert (provenance["member"], provenance["seed"], provenance["agent.expectile"]) == (3, 7, 0.7)
    assert provenance["agent"]["expectile"] == 0.7
    assert load_policy(trained, 3).digest == run.policies[3].digest
    with pytest.raises(ValueError, match=r"has no members \[9\]; it has \[0, 1, 2, 3, 4, 5\]"):
        run.chosen([9])
    assert list(run.chosen_alike([2, 3])) == [2, 3]
    with pytest.raises(ValueError, match=r"is a population, .* such as --seeds 0 1 \(agent.expectile 0.5\)\.$"):
        run.chosen_alike(None)


def test_a_population_is_resumed_as_if_never_stopped(tmp_path, data, trained):
    _run(_population(updates=10), tmp_path / "run", data)
    with pytest.raises(ValueError, match=r"population was .*; restore them in its config.json, or start a new run"):
        _run(_config(population=(Varied("agent.expectile", (0.5, 0.7, 0.99)),)), tmp_path / "run", data, resume=True)
    _run(_population(), tmp_path / "run", data, resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    for number in range(6):
        name = f"policy-member-{number}.sorl"
        assert equal(_networks(tmp_path / "run" / name), _networks(trained / name))


@pytest.mark.parametrize(
    "words, refusal",
    [
        (
            ["agent.q-coefficent", "1", "2"],
            r"^population varies agent.q_coefficent, which is no field of Sorl \(do you mean 'agent.q_coefficient'\?\);"
            r" a population can vary agent.learning_rate, .*agent.q_coefficient\.$",
        ),
        (
            ["agent.hidden-sizes", "8"],
            "population varies agent.hidden_sizes, which is no float or shapes the program; a",
        ),
        (["discount", "0.9"], "population varies discount, which is no field of Sorl"),
        (["agent.discount", "0.9", "2"], "discount is 2.0; give a number from 0 to 1"),
        (["agent.discount"], "population gives agent.discount no number; give at least one behind it"),
        (["agent.discount", "0.9", "0.9"], r"the values \(0.9, 0.9\); give each once"),
        (["agent.discount", "0.9", "agent.discount", "0.8"], "give each field once, with all of its values"),
        (
            ["agent.discount", "0.9", "0.8", "--agent.discount", "0.5"],
            "population varies agent.discount, which the command line also sets to one value; leave one of the two out",
        ),
        (
            ["agent.discount", "0.9", "0.8", "--population", "agent.learning-rate", "0.1", "0.2"],
            "--population is given more than once; name all fields behind one",
        ),
        (["3", "agent.discount", "0.9"], "--population: 3 has no field; give a field of the agent before its values"),
    ],
)
def test_what_makes_no_population_is_one_sentence(words, refusal):
    with pytest.raises(ValueError, match=refusal):
        parse(["--population", *words])


class WithWeights(Bc):
    """An agent with a float, a float or None, and several floats."""

    rate: float = 1.0
    late: float | None = None
    weights: tuple[float, ...] = (1.0, 2.0)


def test_single_floats_vary_and_tuples_do_not():
    assert {"agent.rate", "agent.late"} < {*varying_fields(WithWeights)}
    assert "agent.weights" not in varying_fields(WithWeights)


def test_the_command_line_makes_every_combination():
    words = "--population agent.q-coefficient 1 2 agent.discount 0.9 0.99 --seeds 3 4 agent:sorl"
    config, *_ = parse(words.split())
    members = [(number, member.seed, *member.settings.values()) for number, member in config.members.items()]
    assert members[:5] == [(0, 3, 1, 0.9), (1, 4, 1, 0.9), (2, 3, 1, 0.99), (3, 4, 1, 0.99), (4, 3, 2, 0.9)]
    assert config.members[7].label == "Member 7 (agent.q_coefficient 2, agent.discount 0.99, seed 4)"
    assert config.members[7].agent == dataclasses.replace(config.agent, q_coefficient=2.0, discount=0.99)  # type: ignore[call-arg]
