"""The seal has help, compares what it has, and is refused in one sentence."""

import importlib
import json
import sys

import pytest

from sorl.agents import AGENTS


@pytest.fixture
def seal(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # which importing it sets, and the end of the test restores
    return importlib.import_module("seal")


def run(seal, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["seal.py", *map(str, words)])
    return seal.command()


def test_it_has_help_and_needs_a_file(seal, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(seal, monkeypatch, "--help")
    assert stop.value.code == 0 and "BEFORE" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"^OUT is missing; python benchmarks/seal.py --help lists the options\.$"):
        run(seal, monkeypatch)


def test_it_compares_two_files_of_all_agents(seal, monkeypatch, tmp_path, capsys):
    now, before = tmp_path / "now.json", tmp_path / "before.json"
    found = {name: {"metrics": {"loss": "a"}, "actions": {"M1": "b"}} for name in AGENTS}
    now.write_text(json.dumps(found))
    assert run(seal, monkeypatch, now, now) == 0
    found["Bc"] = {"metrics": {"loss": "c"}, "actions": {}}
    before.write_text(json.dumps(found))
    assert run(seal, monkeypatch, now, before) == 1
    assert capsys.readouterr().out == "No bit moved.\n1 budgets are new.\n/Bc/metrics/loss differs\n"
    with pytest.raises(FileNotFoundError, match="There is no file"):
        run(seal, monkeypatch, now, tmp_path / "other.json")
