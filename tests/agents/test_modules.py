"""`--agent-module`: modules and files that register agents, and what is no such module."""

import sys
from typing import Any

import pytest

from sorl.agents import AGENTS, Bc, Sorl
from sorl.agents.modules import import_modules, module_option
from sorl.agents.registry import register
from sorl.config.json_form import to_json
from sorl.system.files import write_json
from sorl.train.cli import parse

from .. import own_agent


@pytest.fixture(autouse=True)
def forgetful():
    with own_agent.forgotten_afterwards():
        yield


def test_a_file_is_imported_once_and_its_neighbours_are_found(tmp_path):
    (tmp_path / "neighbour.py").write_text("RATE = 0.5\n")
    path = own_agent.write(tmp_path)
    path.write_text("import neighbour\n" + path.read_text())
    import_modules([str(path), str(path)])
    assert AGENTS["Mine"].__module__ == "my_agents" and list(AGENTS)[-1] == "Mine"
    assert module_option(AGENTS["Mine"]) == f" --agent-module {path}"


def test_a_module_is_found_in_the_current_directory_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a package").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("from theirs import agent\n")
    own_agent.write(tmp_path / "theirs", stem="agent")
    import_modules(["theirs"])
    assert module_option(AGENTS["Mine"]) == " --agent-module theirs"


def test_a_path_is_quoted(tmp_path):
    (tmp_path / "a b").mkdir()
    path = own_agent.write(tmp_path / "a b")
    import_modules([str(path)])
    assert module_option(AGENTS["Mine"]) == f" --agent-module '{path}'"


def test_a_file_in_a_directory_named_as_the_package_keeps_its_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sorl.ext").mkdir()
    own_agent.write(tmp_path / "sorl.ext")
    import_modules(["sorl.ext/my_agents.py"])
    assert module_option(AGENTS["Mine"]) == " --agent-module sorl.ext/my_agents.py"


def test_agents_that_every_command_knows_need_no_option():
    assert module_option(Sorl) == ""

    @register
    class OfTheMainModule(Bc):
        """Cannot be imported by a name."""

        __module__ = "__main__"

    assert module_option(OfTheMainModule) == ""

    @register
    class OfALibrary(Bc):
        """Imported by its user's program."""

        __module__ = "library.agents"

    assert module_option(OfALibrary) == " --agent-module library.agents"


def test_an_agent_derived_from_another_has_its_settings_and_its_own_runs(tmp_path):
    @register
    class Derived(Sorl):
        """Sorl under another name, with an option more."""

        rate: float = 0.5
        discount: float = 0.5

    @register
    class DerivedAgain(Derived):
        """Derived from an agent that is derived."""

    plain: Any = parse(["agent:sorl"])[0].agent
    assert plain.q_coefficient != Sorl().q_coefficient  # the quickstart's settings
    for word, kind in {"derived": Derived, "derived-again": DerivedAgain}.items():
        config = parse([f"agent:{word}", "--agent.rate", "0.25"])[0]
        agent: Any = config.agent
        assert type(agent) is kind and agent.rate == 0.25
        assert agent.discount == 0.5 != plain.discount  # a new default is kept, in every preset
        published: Any = parse([f"agent:{word}", "--env", "cube-single-play-singletask-task2-v0"])[0].agent
        assert published.discount == 0.5
        assert (agent.q_coefficient, agent.hidden_sizes) == (plain.q_coefficient, plain.hidden_sizes)
        write_json(tmp_path / "config.json", to_json(config))
        assert parse(["--config", str(tmp_path / "config.json")])[0].agent == agent
    assert parse(["agent:sorl"])[0].agent == plain and list(AGENTS)[-2:] == ["Derived", "DerivedAgain"]


def test_what_cannot_be_imported_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own_agent.write(tmp_path, stem="json")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_text("x = 1\ny = z\n")
    (tmp_path / "unclosed.py").write_text("x = 1\ny = (\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('done')\n")
    (tmp_path / "needs.py").write_text("import a_module_that_is_missing\n")
    (tmp_path / "a_helper.py").write_text("x = 1\n\ny = z\n")
    (tmp_path / "imports.py").write_text("import a_helper\n")
    (tmp_path / "misspelt.py").write_text("import sorl\n\nsorl.register()\n")
    own_agent.write(tmp_path, name="Sorl", stem="another_sorl")
    for name, message in {
        "missing.py": "names missing.py, and there is no such file; give its path",
        "missing": "names missing, and there is no such module; give a module",
        "missing.agents": "names missing.agents, and there is no such module",
        "json.py": "json.py has the name of a module already, .*; rename the file",
        "empty.py": "empty.py registers no agent; call sorl.register_agent",
        "broken.py": r"broken.py cannot be imported: NameError: name 'z' is not defined \(line 2 of broken.py\); mend",
        "unclosed.py": r"unclosed.py cannot be imported: SyntaxError: .* \(line 2 of unclosed.py\); mend",
        "leaves": "leaves cannot be imported: SystemExit: done",
        "needs": "needs cannot be imported: ModuleNotFoundError: No module named 'a_module_that_is_missing'",
        "imports.py": r"imports.py cannot be imported: NameError: .* \(line 3 of a_helper.py\); mend",
        "misspelt.py": r"AttributeError: module 'sorl' has no attribute 'register' \(line 3 of misspelt.py\); mend",
        "another_sorl.py": r"ValueError: There is an agent Sorl already, of .* \(line \d+ of another_sorl.py\); mend",
    }.items():
        with pytest.raises(ValueError, match=message):
            import_modules([name])
    assert "missing" not in sys.modules
