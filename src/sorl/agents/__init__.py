"""Algorithms, one file each, behind one interface."""

from typing import TYPE_CHECKING, Union

from sorl.agents._agent import AbstractAgent as AbstractAgent, Budget as Budget, Budgets as Budgets
from sorl.agents.fawac import Fawac as Fawac
from sorl.agents.fbrac import Fbrac as Fbrac
from sorl.agents.fql import Fql as Fql
from sorl.agents.ifql import Ifql as Ifql
from sorl.agents.sorl import Sorl as Sorl
from sorl.agents.sorl_released import SorlReleased as SorlReleased


AGENTS: dict[str, type[AbstractAgent]] = {
    agent.__name__: agent for agent in (Sorl, SorlReleased, Fawac, Fbrac, Fql, Ifql)
}
"""By the name that a configuration carries."""

if TYPE_CHECKING:
    AnyAgent = AbstractAgent
else:
    # Every one of them, so that the command line offers each as a subcommand.
    AnyAgent = Union[tuple(AGENTS.values())]  # noqa: UP007
