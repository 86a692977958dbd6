"""Command lines that fit no dataclass are refused in one sentence that names what was meant."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from sorl.system import command_line


@dataclasses.dataclass(frozen=True)
class Config:
    """A command."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    inference_steps: tuple[int, ...] | None = None
    """Steps."""
    rate: float = 1.0
    """Rate."""
    episodes: int = 50
    """Episodes."""

    def __post_init__(self):
        if self.episodes < 1:
            raise ValueError(f"episodes is {self.episodes}; give at least 1.")


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "RUN is missing; a.command --help"),
        (["a", "--epsiodes", "3"], "There is no option --epsiodes (do you mean '--episodes'?); a.command --help"),
        (["a", "b"], "There is no argument b; a.command --help"),
        (["a", "--episodes", "many"], "--episodes: 'many' is not a whole number; a.command --help"),
        (["a", "--rate", "1e"], "--rate: '1e' is not a number; a.command --help"),
        (["a", "--inference-steps", "x"], "--inference-steps: 'x' is no list of whole numbers; a.command --help"),
        (["a", "--inference-steps", "it's"], '--inference-steps: "it\'s" is no list of whole numbers; a.command'),
        (["a", "--episodes", "0"], "episodes is 0; give at least 1."),
    ],
)
def test_a_command_line_that_does_not_fit_is_one_sentence(arguments, said):
    with pytest.raises(ValueError) as refusal:
        command_line.parse(Config, arguments, prog="a.command")
    assert str(refusal.value).startswith(said) and "\n" not in str(refusal.value)


def test_a_terminal_without_unicode_shows_the_same_sentence(tmp_path):
    code = (
        "from tests.system.test_command_line import Config; from sorl.system import command_line, entry; "
        "entry.guarded(lambda: command_line.parse(Config, ['a', '--rate', '1e'], prog='a.command'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert done.stderr == "error: --rate: '1e' is not a number; a.command --help lists the options.\n"


def test_help_says_what_exit_codes_mean(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.parse(Config, ["--help"], prog="a.command")
    assert stop.value.code == 0
    assert "130 stopped by Ctrl-C" in " ".join(capsys.readouterr().out.split())
