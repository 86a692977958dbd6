"""The algorithms, one per file, with one common interface."""

from sorl.agents.actors import AbstractActor as AbstractActor
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
from sorl.agents.registry import AGENTS as AGENTS, register as register, register_actor as register_actor
from sorl.agents.sorl import Sorl as Sorl
from sorl.agents.sorl_plus import SorlPlus as SorlPlus
from sorl.agents.sorl_released import SorlReleased as SorlReleased
from sorl.agents.srpo import Srpo as Srpo


# Registered here and not in their files, so that help texts and tables list them in this order.
for _agent in (Sorl, SorlReleased, SorlPlus, Bc, Iql, Rebrac, Idql, Srpo, Cac, Fawac, Fbrac, Ifql, Fql):
    register(_agent)

PAPERS_METHODS = (Sorl, Bc, Iql, Rebrac, Idql, Srpo, Cac, Fawac, Fbrac, Ifql, Fql)
"""The methods of the paper's table."""
