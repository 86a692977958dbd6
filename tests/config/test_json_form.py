"""Options from JSON: what is missing takes its default with a warning, all else is refused in one sentence."""

import copy
import dataclasses
import json
import math
import random
import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

from sorl.agents import AGENTS, Bc, Budget, Rebrac, Sorl, register
from sorl.config import presets
from sorl.config.json_form import agent_from_json, from_json, to_json
from sorl.config.options import TrainConfig, read_config

from .. import own_agent


def _write(directory, values):
    (directory / "config.json").write_text(values if isinstance(values, str) else json.dumps(values))
    return directory / "config.json"


def _without(values, *names):
    values = copy.deepcopy(values)
    for name in names:
        *parents, last = name.split(".")
        holder = values
        for parent in parents:
            holder = holder[parent]
        del holder[last]
    return values


def test_missing_fields_take_their_defaults_and_are_named_once(tmp_path):
    config = presets.quickstart()
    path = _write(tmp_path, _without(to_json(config), "agent.act_with_average", "evaluation.overlap", "batch_size"))
    with pytest.warns(UserWarning) as warned:
        found = read_config(path)
    agent = dataclasses.replace(config.agent, act_with_average=False)
    assert found == dataclasses.replace(config, agent=agent, batch_size=256)
    (warning,) = warned
    assert str(warning.message).startswith(
        f"{path} does not have batch_size, agent.act_with_average, evaluation.overlap; the"
    )


def test_a_field_may_mean_something_else_where_a_file_lacks_it(tmp_path):
    values = to_json(presets.own_logs(tmp_path / "logs.npz"))
    assert values["data"]["observation_margin"] is not None
    with pytest.warns(UserWarning, match="does not have data.observation_margin"):
        found = read_config(_write(tmp_path, _without(values, "data.observation_margin")))
    assert found.data.observation_margin is None


def test_agents_and_budgets_lack_fields_too():
    values = _without(to_json(Rebrac()), "policy_interval")
    with pytest.warns(UserWarning, match="the header does not have policy_interval"):
        assert agent_from_json(values, "the header") == Rebrac()
    with pytest.warns(UserWarning, match="the budget does not have noise_scale"):
        assert from_json(Budget, _without(to_json(Budget()), "noise_scale"), "the budget") == Budget()


@dataclasses.dataclass(frozen=True)
class Inner:
    """A part of an agent's settings."""

    rate: float = 1.0


class WithPart(Bc):
    """An agent whose settings have a part, or none."""

    inner: Inner | None = eqx.field(static=True, default=Inner())


def test_numbers_of_numpy_are_written_as_those_of_json():
    written = to_json((np.int64(3), np.float32(0.5), np.bool_(True)))
    assert json.dumps(written) == "[3, 0.5, true]"


def test_a_part_may_be_missing_or_an_object():
    with own_agent.forgotten_afterwards():
        register(WithPart)
        for agent in (WithPart(), WithPart(inner=None), WithPart(inner=Inner(2.0))):
            assert agent_from_json(to_json(agent), "the header") == agent
        with pytest.raises(ValueError, match="inner is 3; expected an object with the fields of Inner or null"):
            agent_from_json(to_json(WithPart()) | {"inner": 3}, "the header")


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "change, message",
    [
        ({"colour": 1}, "config.json has the unknown field 'colour'; remove it"),
        ({"batch_sise": 1}, r"unknown field 'batch_sise' \(do you mean 'batch_size'\?\)"),
        ({"batch_size": "many"}, "batch_size is 'many'; expected a whole number"),
        ({"batch_size": True}, "batch_size is True; expected a whole number"),
        ({"batch_size": 1.5}, "batch_size is 1.5; expected a whole number"),
        ({"batch_size": 10**30}, "batch_size is 10{30}; give a whole number from 1 to 1048576"),
        ({"updates": 2**31}, "updates is 2147483648; give a whole number from 1 to 2147483647"),
        ({"seeds": [0, [1]]}, r"seeds\[1\] is \[1\]; expected a whole number"),
        ({"seeds": [-1]}, "seeds are"),
        ({"seed_mapping": ["map"]}, r"seed_mapping is \['map'\]; expected 'auto' or 'map' or 'vmap'"),
        ({"env": "a", "data": {"path": "a\0b"}}, "data.path is 'a.*'; expected a path or null"),
        ({"env": {"type": "Sorl"}}, "env is {'type': 'Sorl'}; expected a string or null"),
        (
            {"agent": {"type": "Sor"}},
            r"names the agent 'Sor' \(do you mean 'Sorl'\?\), which is not reg",
        ),
        ({"agent": 3}, "agent is 3; expected an object whose type is the name of an agent"),
        ({"agent": {"type": ["Sorl"]}}, r"agent is \['Sorl'\]; expected an object whose type"),
        ({"data": None}, "data is None; expected an object with the fields of DataConfig"),
        ({"evaluation": {"episodes": -1}}, "evaluation.episodes is -1; give a whole number from 1"),
        ({"evaluation": {"workers": 10**12}}, "evaluation.workers is 1000000000000; give a whole number"),
        ({"data": {"episodes": -1}}, "data.episodes is -1; give a whole number from 1"),
        ({"data": {"validation_fraction": 2.0}}, "data.validation_fraction is 2.0; give a number from 0 to 0.999"),
        (
            {"agent": to_json(Sorl()) | {"learning_rate": to_json(Sorl())}},
            "agent.learning_rate is {.*}; expected a n",
        ),
        ({"agent": to_json(Sorl()) | {"learning_rate": math.inf}}, "agent.learning_rate is inf; expected a finite"),
        ({"agent": to_json(Sorl()) | {"learning_rate": math.nan}}, "agent.learning_rate is nan; expected a finite"),
        ({"agent": to_json(Sorl()) | {"learning_rate": 10**400}}, "agent.learning_rate is 10+.*; expected a finite"),
        ({"agent": to_json(Sorl()) | {"learning_rate": -1e-4}}, "learning_rate is -0.0001; give a number from 0"),
        ({"agent": to_json(Sorl()) | {"learning_rate": 0}}, "learning_rate is 0.0; give a number above 0"),
        ({"agent": to_json(Sorl()) | {"q_coefficient": 1e300}}, r"q_coefficient is 1e\+300; give a number from 0"),
        ({"agent": to_json(Sorl()) | {"discount": 1.1}}, "discount is 1.1; give a number from 0 to 1"),
        ({"agent": to_json(Sorl()) | {"hidden_sizes": []}}, "give at least one hidden layer"),
        ({"agent": to_json(Sorl()) | {"hidden_sizes": [10**12]}}, "give whole numbers from 1 to 65536"),
        ({"agent": to_json(Sorl()) | {"hidden_sizes": [8] * 65}}, "hidden_sizes has 65 layers; give at most 64"),
        ({"agent": to_json(Sorl()) | {"discretization_steps": 2**20}}, "give a whole number from 1 to 1024"),
        ({"agent": to_json(Sorl()) | {"critic_heads": 10**9}}, "critic_heads is 1000000000; give a whole number"),
    ],
)
@pytest.mark.filterwarnings("ignore:.* does not have")
def test_what_does_not_fit_is_refused_in_one_sentence(change, message, tmp_path):
    with pytest.raises(ValueError, match=message) as refusal:
        read_config(_write(tmp_path, to_json(presets.quickstart()) | change))
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 600


@pytest.mark.parametrize("text", ["", "{", "[]", "3", DEEP, '{"a": ' + DEEP + "}", '{"a": 1, "a": 1}', "\ufeff{}"])
def test_what_is_no_object_is_refused_with_the_files_name(text, tmp_path):
    path = _write(tmp_path, text)
    with pytest.raises(ValueError, match="config.json") as refusal:
        read_config(path)
    assert "\n" not in str(refusal.value)
    path.write_bytes(b"\xff" + text.encode())
    with pytest.raises(ValueError, match="config.json"):
        read_config(path)


NASTY: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 10**12, 10**30, 10**400, -(10**30)),
    *(0.0, -0.5, 0.5, 1.5, 1e-300, 1e300, math.inf, -math.inf, math.nan),
    *("", "x", "\0", "\ud800", "None", "Sorl", "../..", "a" * 100_000, "1"),
    *([], [[]], [0], [1], [-1], [10**12], [1, 1], ["a"], [None], [1.5], list(range(1000)), [65_537], [4, 16]),
    *({}, {"type": "Sorl"}, {"type": "Dreamer"}, {"type": None}, {"a": {"b": []}}),
    to_json(Sorl()),
]


def _mutated(values: Any, generator: random.Random) -> Any:
    """A copy with up to three places deleted, replaced, renamed or filled with another thing."""
    values = copy.deepcopy(values)
    for _ in range(generator.randint(1, 3)):
        holder, key = _place(values, generator)
        nasty = copy.deepcopy(generator.choice(NASTY))
        match generator.randint(0, 3):
            case 0:
                holder[key] = nasty
            case 1 if isinstance(holder, dict):
                holder[generator.choice(["", "type", "seeds", "x", key + "s"])] = nasty
            case 2:
                del holder[key]
            case _:
                holder[key] = [holder[key]]
    return values


def _place(values: Any, generator: random.Random) -> tuple[Any, Any]:
    places, waiting = [], [values]
    while waiting:
        holder = waiting.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            places.append((holder, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    return generator.choice(places) if places else (values, "x") if isinstance(values, dict) else ({}, "x")


def mutate_and_read(directory, seeds):
    """Reads mutated configurations; returns how many were accepted. Anything but one sentence is an error."""
    accepted = 0
    for seed in seeds:
        generator = random.Random(seed)
        agent = generator.choice(list(AGENTS.values()))
        base = presets.quickstart("cube-single-play-singletask-v0", agent) if seed % 2 else presets.paper("a", agent)
        values = _mutated(to_json(base), generator)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                config = read_config(_write(directory, values))
        except ValueError as error:
            assert "\n" not in str(error) and "config.json" in str(error), f"{seed}: {error}"
            continue
        accepted += 1
        assert isinstance(config, TrainConfig)
        init = config.agent.init
        jax.eval_shape(lambda key, init=init: init(3, 2, key=key), jax.random.key(0))
    return accepted


def test_no_mutation_gives_a_traceback(tmp_path):
    assert mutate_and_read(tmp_path, range(300)) > 20
