"""The registry: what may be registered, how it is named, and what happens to names that it lacks."""

import dataclasses
import importlib.metadata
from typing import Any

import equinox as eqx
import numpy as np
import pytest

import sorl
from sorl.agents import AGENTS, Bc, Sorl
from sorl.agents.actors import ShortcutActor, actor_of
from sorl.agents.registry import (
    UnknownAgent,
    find,
    find_actor,
    load_entry_points,
    published_success,
    register,
    word,
)
from sorl.config import presets
from sorl.train.cli import parse

from .. import own_agent


@pytest.fixture(autouse=True)
def forgetful():
    with own_agent.forgotten_afterwards():
        yield


def _class(name: str, **attributes: Any) -> Any:
    return type(name, (Bc,), attributes)


def test_the_packages_own_agents_come_first_in_their_order():
    assert list(AGENTS)[:4] == ["Sorl", "SorlReleased", "SorlPlus", "Bc"] and len(AGENTS) >= 13
    assert sorl.register_agent is register


def test_a_decorated_class_is_found_by_its_name():
    @register
    class Mine(Bc):
        """Mine."""

    assert find("Mine", "here") is Mine
    assert AGENTS["Mine"] is Mine


@pytest.mark.parametrize(
    "name, expected", [("Sorl", "sorl"), ("SorlReleased", "sorl-released"), ("MyDQN", "my-dqn"), ("TD3Bc", "td3-bc")]
)
def test_words_of_the_command_line(name, expected):
    assert word(_class(name)) == expected


def test_what_is_no_finished_agent_is_refused():
    with pytest.raises(ValueError, match="<class 'int'> is no agent; register a class that is derived from"):
        register(int)
    with pytest.raises(ValueError, match="The agent AbstractAgent has no .*update; define what sorl.AbstractAgent"):
        register(sorl.AbstractAgent)

    class Needy(Bc):
        width: int = None  # pyright: ignore[reportAssignmentType]

        def __init__(self, width: int):
            self.width = width

    with pytest.raises(ValueError, match="The agent Needy has no default for width; give each hyper-parameter one"):
        register(Needy)
    with pytest.raises(ValueError, match="quickstart of the agent Mine sets learning_rat, which is no hyper-parameter"):
        register(_class("Mine", quickstart={"learning_rat": 1.0}))


def test_fields_that_files_or_compiled_updates_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="Mine has a field named type, where files have its class; give it another"):
        register(_class("Mine", type=1.0, __annotations__={"type": float}))
    for value in ("x", True):
        with pytest.raises(ValueError, match=r"The agent Mine has kind = .*; declare it as eqx.field\(static=True"):
            register(_class("Mine", kind=value, __annotations__={"kind": type(value)}))
    with pytest.raises(ValueError, match=r"^quickstart: The agent Mine has learning_rate = 'big', which the compiled"):
        register(_class("Mine", quickstart={"learning_rate": "big"}))
    with pytest.raises(
        ValueError, match=r"The agent Mine has hidden_sizes = \[8, 8\], a list; give a number, a text or a"
    ):
        register(_class("Mine", own_logs={"hidden_sizes": [8, 8]}))
    with pytest.raises(ValueError, match="The agent Mine has rate = .*, an array; give a number"):
        made = eqx.field(default_factory=lambda: np.zeros(2))
        register(_class("Mine", rate=made, __annotations__={"rate": np.ndarray}))


def test_budgets_are_budgets():
    class Loose(ShortcutActor):
        budgets = (1, 2)  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    with pytest.raises(ValueError, match="budgets of the actor of Mine is a tuple; make it a property that returns"):
        register(_class("Mine", actor=property(lambda self: actor_of(Loose, Sorl()))))


class OtherActor(ShortcutActor):
    """An actor under another name."""


class TwoActors(Sorl):
    """Chooses between two actors by a setting."""

    other: bool = eqx.field(static=True, default=False)

    @property
    def actor(self) -> ShortcutActor:
        return actor_of(OtherActor if self.other else ShortcutActor, self)


def test_an_actor_that_settings_choose_is_registered_or_refused_before_training():
    register(TwoActors)
    config = presets.quickstart(agent=TwoActors)
    with pytest.raises(ValueError, match="TwoActors has the actor OtherActor with these settings, which is not regist"):
        dataclasses.replace(config, agent=TwoActors(other=True))
    assert sorl.register_actor(OtherActor) is OtherActor
    assert find_actor("OtherActor", "here") is OtherActor
    assert dataclasses.replace(config, agent=TwoActors(other=True)).agent == TwoActors(other=True)
    with pytest.raises(ValueError, match="<class 'int'> is no actor; register a class that is derived from"):
        sorl.register_actor(int)
    with pytest.raises(ValueError, match="The actor OtherActor of the module .* has the name of another, of the mod"):
        sorl.register_actor(type("OtherActor", (ShortcutActor,), {}))


def test_a_derived_agent_has_the_published_settings_and_not_the_score():
    task = "cube-single-play-singletask-task2-v0"
    assert published_success(Sorl, task) == 97 and published_success(_class("Mine"), task) is None
    derived = type("Mine", (Sorl,), {})
    assert published_success(derived, task) is None and derived.published.of_task(task) is not None
    register(derived)
    source = parse(["agent:mine", "--env", task])[2]
    assert "the published ones of Sorl for cube-single-play;" in source
    assert "(published success 97 %)" in parse(["agent:sorl", "--env", task])[2]


def test_names_that_exist_are_refused():
    with pytest.raises(ValueError, match="There is an agent Sorl already, of the module sorl.agents.sorl; give .*Sorl"):
        register(_class("Sorl"))
    with pytest.raises(ValueError, match="There is an agent SorlReleased already"):  # by its word
        register(_class("Sorl_released"))
    with pytest.raises(ValueError, match="There is an agent Sorl already"):
        register(Sorl)
    register(_class("Mine", __module__="__main__"))
    again = _class("Mine", __module__="__main__")  # a cell of a notebook, run again
    assert register(again) is again and find("Mine", "here") is again


def test_a_name_that_is_not_registered_is_refused_in_one_sentence():
    with pytest.raises(UnknownAgent, match=r"run/config.json names the agent 'Sorll' \(do you mean 'Sorl'\?\), which"):
        find("Sorll", "run/config.json")
    with pytest.raises(UnknownAgent, match="name the module or file of another with --agent-module, or import it"):
        find("os", "run/config.json")


def test_entry_points_are_loaded_once_when_a_name_is_missing_and_a_broken_one_is_a_warning(monkeypatch):
    loads = []

    class Point:
        def __init__(self, name: str, value: str, load: Any):
            self.name, self.value, self.load, self.dist = name, value, load, None

    def broken():
        raise ImportError("no module named that")

    points = [
        Point("mine", "mine:Mine", lambda: loads.append(register(_class("Mine")))),
        Point("bad", "bad:Bad", broken),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "sorl.agents" else [])
    find("Sorl", "here")
    assert loads == []
    with pytest.warns(UserWarning, match=r"entry point bad \(bad:Bad\) failed: ImportError: no module named that"):
        assert find("Mine", "here") is loads[0]
    load_entry_points()
    assert len(loads) == 1
