"""README and pages: every block runs, every command is one that exists, and every link leads somewhere.

The blocks of a page run in order, Python ones in one namespace, in a directory of their own that holds `logs.npz`,
`policy.sorl` and a trained run `RUN`. A shell line runs in this process, with tiny settings, where it is one of sorl's
commands and its data are there; else its options are read. A block below `<!-- not run: WHY -->` is only read.
"""

import contextlib
import importlib
import inspect
import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import textbook

import sorl
from sorl import Normalisation, Policy
from sorl.agents import AGENTS
from sorl.agents.registry import word
from sorl.agents.shared.published import ENVIRONMENTS
from sorl.config import presets
from sorl.policy import latency
from sorl.runs import run as runs
from sorl.sweep import __main__ as sweep
from sorl.system import command_line
from sorl.train import cli

from . import own_agent, synthetic
from .random_networks import make_policy


ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = {
    str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
}

TINY_TRAINING = (
    "--updates 4 --batch-size 8 --log-interval 2 --checkpoint-interval 4 --quiet --no-compilation-cache "
    "--agent.hidden-sizes 8 --agent.critic-hidden-sizes 8 --agent.discretization-steps 2 --agent.backprop-steps 1"
).split()
TINY_OWN_AGENT = TINY_TRAINING[:-6]
"""Without the options of SORL."""
TINY_EVALUATION = (
    "--evaluation.interval 4 --evaluation.episodes 1 --evaluation.final-episodes 1 --evaluation.workers 1 "
    "--evaluation.inference-steps 1 --evaluation.final-inference-steps 1 --evaluation.final-candidates 1"
).split()
TINY_GAMES = "--inference-steps 1 --candidates 1 --episodes 1 --workers 1 --no-compilation-cache".split()
TINY = {
    "evaluate": TINY_GAMES,
    "scaling": [*TINY_GAMES, "--timing-seconds", "0", "--batch-size", "1", "--quiet"],
    "policy": ["--no-compilation-cache"],
    "export": ["--platforms", "cpu"],
    "plots": [],
    "convert": ["--quiet"],
    "inspect": ["--quiet"],
    "report": [],
}
"""Options for each command, behind those of the page."""
SMALLER = {
    "(256, 256)": "(8,)",
    "range(10)": "range(2)",
    "jnp.int32(1000)": "jnp.int32(2)",
    "log_interval=1000": "log_interval=2",
    "batch_size=256": "batch_size=8",
    "workers=8": "workers=1",
    "episodes=50": "episodes=1",
}
"""What Python blocks say for real trainings, and what is run instead."""
QUICKSTART = "cube-single-play-singletask-task1-v0"
PLACEHOLDERS = {"N": "1", "Q": "1", "ENV": QUICKSTART, "NAME": QUICKSTART, "agent:NAME": "agent:fql", "$run": "NEW"}

BLOCK = re.compile(r"^(<!-- not run: \S.*? -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(python (?:-m sorl\.\w+|benchmarks/\w+\.py)[^`]*)`")


class Block(NamedTuple):
    """A piece of code on a page."""

    language: str
    code: str
    is_run: bool


def blocks(page: str) -> list[Block]:
    return [Block(language, code, not mark) for mark, language, code in BLOCK.findall(PAGES[page])]


def commands(code: str) -> list[list[str]]:
    """The words of each command of a shell block, joined by a backslash or `&&` or not."""
    lines = [line for line in code.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    return [shlex.split(command, comments=True) for line in lines for command in line.split("&&") if command.strip()]


def sorls_own(words: list[str]) -> list[str] | None:
    """The words from `python` on of one of sorl's commands, which may stand behind others; None for another command."""
    for first in range(len(words) - 1):
        if words[first] == "python" and (words[first + 1].startswith("benchmarks/") or is_module(words[first + 1 :])):
            return [PLACEHOLDERS.get(word, word) for word in words[first:]]
    return None


def is_module(words: list[str]) -> bool:
    return words[0] == "-m" and len(words) > 1 and words[1].startswith("sorl.")


def module_of(name: str) -> Any:
    for place in (f"sorl.{name}.__main__", f"sorl.{name}"):
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(place)
    raise AssertionError(f"there is no command sorl.{name}")


def read(words: list[str]) -> None:
    """Reads the options of a command as it does itself, and no more; raises as it does for what does not exist."""
    if "--help" in words:
        words = [word for word in words if word != "--help"]
    if words[1] == "-m" and words[2] == "sorl.train":
        cli.parse(words[3:])
    elif words[1] == "-m" and words[2] == "sorl.sweep":
        sweep.parse([word for word in words[3:] if word not in ("--config", "sweep.toml")])
    elif words[1] == "-m":
        command_line.parse(module_of(words[2].removeprefix("sorl.")).Config, words[3:], prog=" ".join(words[:3]))
    elif "class Config" in (ROOT / words[1]).read_text():
        command_line.parse(importlib.import_module(Path(words[1]).stem).Config, words[2:], prog=" ".join(words[:2]))


def run(words: list[str]) -> None:
    """Runs a command as `python -m` does, in this process, with tiny settings; reads it where that cannot be."""
    name = words[2].removeprefix("sorl.") if words[1] == "-m" else ""
    if name == "train" and "--resume" in words:
        tiny = ["--quiet", "--no-compilation-cache"]
    elif name == "train" and "--data" in words:
        tiny = TINY_OWN_AGENT if "--agent-module" in words else TINY_TRAINING
        tiny = tiny + TINY_EVALUATION * ("--env" in words)
        if "--run-dir" not in words:  # the directory is named by the second, and a tiny training takes no longer
            tiny = [*tiny, "--run-dir", f"run-{len(list(Path().iterdir()))}"]
    elif name in TINY:
        tiny = TINY[name]
    else:
        return read(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *words[3:], *tiny])
        assert module_of(name).command() in (0, None)


def check_tool(words: list[str]) -> None:
    """That the extras and sessions exist which pip and nox are asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert words[:2] == ["python", "-m"], f"{words}: no command of sorl, pip or nox; mark the block as not run"
    if words[2] == "pip":
        extras = {extra for names in re.findall(r"\[(.*?)\]", " ".join(words)) for extra in names.split(",")}
        assert words[3] == "install" and extras <= project["optional-dependencies"].keys()
    else:
        sessions = re.findall(r"^@nox.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
        assert words[2] == "nox" and set(words[4:]) <= set(sessions) and words[3:4] in ([], ["-s"])


def write_pendulum_logs(path: Path) -> None:
    """Made-up logs with the sizes of Pendulum-v1."""
    random, rows = np.random.default_rng(0), 200
    np.savez(
        path,
        observations=random.normal(size=(rows, 3)),
        actions=random.uniform(-2, 2, (rows, 1)),
        rewards=random.normal(size=rows),
        terminals=np.zeros(rows),
        timeouts=np.arange(rows) % 25 == 24,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A directory with logs, a policy, and a run that was trained on the logs and evaluated."""
    place = tmp_path_factory.mktemp("documentation")
    write_pendulum_logs(place / "logs.npz")
    runs.create(place / "arm", presets.own_logs(place / "logs.npz"))
    agent = synthetic.agent()
    networks = make_policy(agent, 28, 5, seed=0, scale=0.2)  # the sizes of cube-single
    Policy(agent.actor, networks, Normalisation.identity(28, 5)).save(place / "policy.sorl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run(shlex.split("python -m sorl.train --data logs.npz --env gymnasium:Pendulum-v1 --run-dir RUN"))
    return place


@pytest.fixture
def here(workplace, tmp_path, monkeypatch):
    """A copy of the workplace, as the current directory."""
    shutil.copytree(workplace, tmp_path / "here")
    shutil.copy(ROOT / "docs/examples/mean_flow.py", tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(latency, "measure", lambda decisions, **_: dict.fromkeys(decisions, 1.0))
    monkeypatch.syspath_prepend(tmp_path / "here")
    with own_agent.forgotten_afterwards():
        yield


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.is_run for block in blocks(page))])
def test_every_block_runs(page, here, capsys):
    namespace: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks(page)):
        if block.is_run and block.language == "python":
            code = block.code
            for real, tiny in SMALLER.items():
                code = code.replace(real, tiny)
            exec(compile(code, f"{page}, block {number}", "exec"), namespace)
        elif block.is_run:
            for words in commands(block.code):
                run(own) if (own := sorls_own(words)) else check_tool(words)


@pytest.mark.parametrize("page", list(PAGES))
def test_the_options_of_every_other_command_exist(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    shown = [commands(block.code) for block in blocks(page) if block.language == "bash" and not block.is_run]
    inline = [commands(" ".join(code.replace("...", "").split())) for code in INLINE.findall(PAGES[page])]
    for words in [own for one in shown + inline for words in one if (own := sorls_own(words))]:
        read(words)


def test_blocks_are_of_two_languages_and_each_smaller_setting_is_used():
    found = [block for page in PAGES for block in blocks(page)]
    assert {block.language for block in found} == {"python", "bash"}
    assert sum(page.count("```") for page in PAGES.values()) == 2 * len(found)
    code = "".join(block.code for block in found)
    assert [real for real in SMALLER if real not in code] == []


def anchors(text: str) -> set[str]:
    """Those of a page's headings, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles} | set(
        re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    )


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/README.md", "CHANGELOG.md"])
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), target
        if anchor and "sorl." not in anchor:
            assert anchor in anchors(place.read_text()), target
        elif anchor:
            assert any(anchor.startswith(known) for known in anchors(place.read_text()) if "." in known), target


def test_the_pages_list_every_public_name():
    listed = {name for path in DOCS for name in re.findall(r"^::: sorl\.(\w+)$", path.read_text(), re.MULTILINE)}
    assert set(sorl.__all__) - {"__version__"} - listed == set()


def test_the_menu_lists_every_page_and_no_other():
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert sorted(re.findall(r"(\S+\.md)$", menu, re.MULTILINE)) == sorted(
        path.relative_to(ROOT / "docs").as_posix() for path in DOCS
    )


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 130


def test_the_readmes_agents_have_their_published_and_measured_figures():
    rows = re.findall(r"^\| \[`([\w-]+)`\].* \| (\d+) \| ([\d.]+) \|$", PAGES["README.md"], re.MULTILINE)
    published = [agent for agent in AGENTS.values() if agent.published.settings[ENVIRONMENTS[0]].success is not None]
    assert {row[0] for row in rows} == {word(agent) for agent in published}
    measured = json.loads((ROOT / "benchmarks/results/comparison.json").read_text())["table"]
    milliseconds = {row["agent"]: row["update_ms"] for row in measured}
    for agent in published:
        scores: list[Any] = [agent.published.settings[env].success for env in ENVIRONMENTS]
        figures = f"{sum(scores) / len(scores):.0f}", f"{milliseconds[word(agent)]:.1f}"
        assert (word(agent), *figures) in rows


def test_the_example_of_an_agent_is_shown_as_it_runs():
    source = (ROOT / "docs/examples/mean_flow.py").read_text()
    assert source in [block.code for block in blocks("docs/write-an-agent.md")] and len(source.splitlines()) <= 150


def test_the_textbooks_update_is_shown_as_it_runs():
    page = PAGES["docs/sorl-in-60-lines.md"]
    for function in (textbook.update, textbook.field_velocity, textbook.critic_values):
        assert inspect.getsource(function).strip() in page
    assert blocks("docs/sorl-in-60-lines.md")[0].code in inspect.getsource(textbook)
    lines = [line.strip() for line in inspect.getsource(textbook.update).splitlines()]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 60


def test_the_readme_prints_the_command_of_the_continuous_integration():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command.startswith("python -m pip install nox")
    assert f"`{command}`" in (ROOT / "README.md").read_text()
