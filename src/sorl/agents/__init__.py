"""Algorithms, one file each, behind one interface."""

from typing import TYPE_CHECKING, Union

from sorl.agents.bc import Bc as Bc
from sorl.agents.budget import Budget as Budget, Budgets as Budgets
from sorl.agents.cac import Cac as Cac
from sorl.agents.fawac import Fawac as Fawac
from sorl.agents.fbrac import Fbrac as Fbrac
from sorl.agents.fql import Fql as Fql
from sorl.agents.idql import Idql as Idql
from sorl.agents.ifql import Ifql as Ifql
from sorl.agents.interface import AbstractAgent as AbstractAgent
from sorl.agents.iql import Iql as Iql
from sorl.agents.rebrac import Rebrac as Rebrac
from sorl.agents.sorl import Sorl as Sorl
from sorl.agents.sorl_released import SorlReleased as SorlReleased
from sorl.agents.srpo import Srpo as Srpo


AGENTS: dict[str, type[AbstractAgent]] = {
    agent.__name__: agent for agent in (Sorl, SorlReleased, Bc, Iql, Rebrac, Idql, Srpo, Cac, Fawac, Fbrac, Ifql, Fql)
}
"""By the name that a configuration carries."""

if TYPE_CHECKING:
    AnyAgent = AbstractAgent
else:
    # Every one of them, so that the command line offers each as a subcommand.
    AnyAgent = Union[tuple(AGENTS.values())]  # noqa: UP007
