"""The published tables, copied from the papers a second time: success in percent, and what agents are set to."""

from typing import Any

import pytest

from sorl.agents import AGENTS, Rebrac, Srpo
from sorl.agents.shared.published import ENVIRONMENTS
from sorl.config import presets


# One row for each environment; success of SORL's paper, then of the FQL paper.
SUCCESS = """
environment                   Sorl  Bc Iql Rebrac Idql Srpo Cac Fawac Fbrac Ifql Fql
antmaze-large-navigate          89  11  53     81   21   11  33     6    60   28  79
antmaze-giant-navigate           9   0   4     26    0    0   0     0     4    3   9
humanoidmaze-medium-navigate    64   2  33     22    1    1  53    19    38   60  58
humanoidmaze-large-navigate      5   1   2      2    1    0   0     0     2   11   4
antsoccer-arena-navigate        69   1   8      0   12    1   2    12    16   33  60
cube-single-play                97   5  83     91   95   80  85    81    79   79  96
cube-double-play                25   2   7     12   15    2   6     5    15   14  29
scene-play                      57   5  28     41   46   20  40    30    45   30  56
"""

# The tuned hyper-parameter of each agent; "?" where the paper names none for the environment.
SETTINGS = """
environment                   Iql Rebrac     Idql Srpo Cac   Fawac Fbrac Ifql Fql Sorl
antmaze-large-navigate         10 0.003,0.01   32  0.3 1         3     3   32  10  500
antmaze-giant-navigate         10 0.003,0.01   32  0.3 1         3    10   32  10  500
humanoidmaze-medium-navigate   10 0.01,0.01    32  0.3 0.03      3    30   32  30  100
humanoidmaze-large-navigate    10 0.01,0.01    32  0.3 1         3    30   32  30  500
antsoccer-arena-navigate        1 0.01,0.01     ?    ? ?         ?     ?   64  10  500
cube-single-play                1 1,0          32 0.03 0.003     1   100   32 300   10
cube-double-play              0.3 0.1,0        32  0.1 0.3     0.3   100   32 300   50
scene-play                     10 0.1,0.01     32  0.1 0.3     0.3   100   32 300  100
"""

FIELDS = {
    "Iql": ("temperature",),
    "Rebrac": ("actor_cloning_coefficient", "critic_cloning_coefficient"),
    "Idql": ("candidates",),
    "Srpo": ("q_coefficient",),
    "Cac": ("q_coefficient",),
    "Fawac": ("temperature",),
    "Fbrac": ("flow_matching_coefficient",),
    "Ifql": ("candidates",),
    "Fql": ("distillation_coefficient",),
    "Sorl": ("q_coefficient",),
}


def _table(text: str) -> dict[tuple[str, str], str]:
    """By environment and agent."""
    head, *rows = (line.split() for line in text.strip().splitlines())
    return {(row[0], agent): cell for row in rows for agent, cell in zip(head[1:], row[1:], strict=True)}


def test_sorl_plus_has_settings_and_no_published_success():
    settings = AGENTS["SorlPlus"].published.settings
    assert settings.keys() == {*ENVIRONMENTS, "puzzle-3x3-play", "puzzle-4x4-play"}
    assert {found.success for found in settings.values()} == {None}
    plain = AGENTS["Sorl"].published.settings
    for env, discount in (("antmaze-large-navigate", 0.995), ("humanoidmaze-large-navigate", 0.999)):
        assert settings[env].fields["discount"] == discount
        assert settings[env].fields["q_coefficient"] == plain[env].fields["q_coefficient"]
    for task in ("cube-double-play-singletask-task1-v0", "puzzle-4x4-play-singletask-v0"):
        agent: Any = presets.paper(task, AGENTS["SorlPlus"]).agent
        assert (agent.backup_candidates, agent.use_q_loss, agent.actor.budgets.usual.candidates) == (4, False, 4)
    agent = presets.paper("puzzle-3x3-play-singletask-task1-v0", AGENTS["SorlPlus"]).agent
    assert (agent.backup_candidates, agent.use_q_loss, agent.renoise, agent.q_coefficient) == (4, True, 3, 10.0)


@pytest.mark.parametrize("agent", sorted(AGENTS.keys() - {"SorlPlus"}))
def test_published_success_is_that_of_the_papers(agent):
    table = _table(SUCCESS)
    column = "Sorl" if agent == "SorlReleased" else agent
    found = {env: settings.success for env, settings in AGENTS[agent].published.settings.items()}
    assert found == {env: int(table[env, column]) for env in ENVIRONMENTS}


@pytest.mark.parametrize("agent", FIELDS)
def test_published_settings_are_those_of_the_papers(agent):
    table = _table(SETTINGS)
    for env in ENVIRONMENTS:
        if (cell := table[env, agent]) != "?":
            found = tuple(AGENTS[agent].published.settings[env].fields[name] for name in FIELDS[agent])
            assert found == tuple(map(float, cell.split(",")))


def test_the_tables_name_every_agent():
    assert {agent for _, agent in _table(SUCCESS)} | {"SorlReleased", "SorlPlus"} == set(AGENTS)


@pytest.mark.parametrize("env", ["scene-play-singletask-v0", "puzzle-3x3-play-singletask-v0"])
def test_the_paper_preset_judges_success_as_the_papers_did(env):
    assert presets.paper(env).evaluation.success_timing == "post"
    assert presets.quickstart(env).evaluation.success_timing == "pre"


def test_the_paper_preset_follows_the_codes_where_they_depart_from_the_formulas():
    for env in ENVIRONMENTS:
        task = f"{env}-singletask-v0"
        agents = [presets.paper(task, Rebrac).agent, presets.quickstart(task, Rebrac).agent]
        assert [isinstance(a, Rebrac) and a.momentum_between_turns for a in agents] == [True, False]
        srpo = presets.paper(task, Srpo).agent
        assert isinstance(srpo, Srpo) and srpo.normalise_guidance == ("maze" in env)
