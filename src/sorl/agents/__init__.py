"""Algorithms, one file each, behind one interface."""

from sorl.agents._agent import AbstractAgent as AbstractAgent, Budget as Budget
from sorl.agents.sorl import Sorl as Sorl
from sorl.agents.sorl_released import SorlReleased as SorlReleased


AGENTS: dict[str, type[AbstractAgent]] = {agent.__name__: agent for agent in (Sorl, SorlReleased)}
"""By the name that a configuration carries."""
