"""The option of every command that reads a run or a policy: agents of the user's own."""

import dataclasses

import tyro

from sorl.agents.modules import import_modules


@dataclasses.dataclass(frozen=True)
class OwnAgents:
    """Agents of your own."""

    agent_module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Module, or Python file, that registers an agent of your own; it is imported first. May be given several times."""

    @property
    def words(self) -> list[str]:
        """The same options, for a command that is printed."""
        return [word for name in self.agent_module for word in ("--agent-module", name)]

    def load(self) -> None:
        """Imports the modules; raises a `ValueError`, one sentence, for one that cannot be imported."""
        import_modules(self.agent_module)
