"""The text of `--help` of every command, at usual terminal widths."""

import dataclasses
import re
from types import ModuleType
from typing import Annotated

import pytest
import tyro

from sorl import export, generate, plots
from sorl.assess import __main__ as assess
from sorl.evaluate import __main__ as evaluate
from sorl.policy import __main__ as policy
from sorl.report import __main__ as report
from sorl.scaling import __main__ as scaling
from sorl.system import command_line
from sorl.train import __main__ as train
from sorl.train.cli import agent_words


COMMANDS: dict[str, ModuleType] = {
    module.__name__: module for module in (assess, evaluate, export, generate, plots, policy, report, scaling)
}
OWN_WORDS = ("none takes", "none chooses", "by default", "unless told", "is told", "go on", "goes on", "told otherwise")
"""Phrases that say "default: ..." in other words."""


def _help(capsys, monkeypatch, width, arguments, module=None):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stop:
        if module is None:
            train.parse(arguments)
        else:
            command_line.parse(module.Config, arguments, prog="a.command")
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", [*COMMANDS, "train", "train agent:sorl", "train agent:srpo"])
def test_help_fits_the_terminal_and_fills_it(capsys, monkeypatch, name, width):
    text = _help(capsys, monkeypatch, width, [*name.split()[1:], "--help"], COMMANDS.get(name))
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert not [phrase for phrase in OWN_WORDS if phrase in " ".join(text.split())]
    # A paragraph breaks only where the next word does not fit.
    usage, head = lines[0], lines[1 : next(i for i, line in enumerate(lines) if re.match("╭| [a-z ]+$", line))]
    assert usage.startswith("usage: ")
    for line, following in zip(head, head[1:], strict=False):
        assert not line or not following or following.startswith("- ") or len(f"{line} {following.split()[0]}") > width


def test_help_of_train_names_the_agents_in_a_sentence_each_and_one_agent_in_full(capsys, monkeypatch):
    text = _help(capsys, monkeypatch, 80, ["--help"])
    assert text.startswith("usage: python -m sorl.train [-h] [OPTIONS] [agent:NAME]\n")
    assert all(word in text.split() for word in agent_words()) and "Differences from" not in text
    text = _help(capsys, monkeypatch, 80, ["agent:srpo", "--help"])
    assert "Differences from" in text and "--agent.pretraining-updates" in text


@dataclasses.dataclass(frozen=True)
class Example:
    """An example.

    - one item
      of two lines
    - another
    """

    steps: int | None = None
    """Number of steps, in a sentence that stands on two lines
    (and goes on in brackets); default: the agent's own."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "a"
    """File to write; default: b."""
    seeds: tuple[int, ...] | None = None
    """Seeds."""


def test_a_default_of_none_is_told_in_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        command_line.parse(Example, ["--help"], prog="a.command")
    text = capsys.readouterr().out
    said = (
        "Number of steps, in a sentence that stands on two lines (and goes on in brackets). (default: the agent's own)"
    )
    assert said in text
    assert "File to write. (default: a)" in text and "Seeds. (default: None)" in text
    assert "\n- one item of two lines\n- another\n" in text


def test_help_stands_in_a_line_with_a_mistake(capsys, monkeypatch):
    assert "--epsiodes" not in _help(capsys, monkeypatch, 80, ["RUN", "--epsiodes", "x", "--help"], evaluate)


@dataclasses.dataclass(frozen=True)
class First:
    """The first."""


@dataclasses.dataclass(frozen=True)
class Second:
    rate: float = 1.0
    """A rate."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice."""

    kind: First | Second = First()
    """One of the two."""


def test_a_choice_without_a_docstring_has_no_description(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        command_line.parse(Choice, ["--help"], prog="a.command")
    text = capsys.readouterr().out
    assert "The first." in text and "kind:second" in text and "Second(" not in text
