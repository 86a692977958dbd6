"""The registry of algorithms; `register(MyAgent)` adds one.

The command line, files, evaluations and reports identify an algorithm by the name of its class.
"""

import dataclasses
import importlib.metadata
import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, Union, cast

from sorl.agents.actors import ACTORS, AbstractActor
from sorl.agents.budget import Budgets
from sorl.agents.interface import AbstractAgent
from sorl.system.names import nearest


Agent = TypeVar("Agent", bound=type)
Actor = TypeVar("Actor", bound=type)

ENTRY_POINTS = "sorl.agents"
"""The group of entry points through which installed packages provide agents."""

_agents: dict[str, type[AbstractAgent]] = {}
AGENTS: Mapping[str, type[AbstractAgent]] = MappingProxyType(_agents)
"""A read-only view of all registered agents, by the name of the class and in the order of registration."""


class UnknownAgent(ValueError):
    """A file or a command names an agent that is not registered."""


def register(agent_class: Agent) -> Agent:
    """Makes an algorithm known to every command and file; usable as a decorator.

    Raises a `ValueError`, one sentence, if the class is not an agent, is incomplete, or has a name that is taken.
    """
    _refuse_unfinished(agent_class)
    name = agent_class.__name__
    assert issubclass(agent_class, AbstractAgent)
    earlier = {word(known): known for known in _agents.values()}.get(word(agent_class))
    if earlier is not None and not _is_defined_again(agent_class, earlier):
        raise ValueError(
            f"There is an agent {earlier.__name__} already, of the module {earlier.__module__}; give "
            f"{agent_class.__module__}.{name} another name."
        )
    make: Any = agent_class
    default = make()
    values = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    for place, given in (("", values), *_presets(agent_class)):
        _refuse_untrainable_values(agent_class, f"{place}: " if place else "", given)
    register_actor(type(default.actor))
    _refuse_other_budgets(name, default.actor.budgets)
    _agents[name] = agent_class
    return agent_class


def register_actor(actor_class: Actor) -> Actor:
    """Makes an actor known to every command and policy file; usable as a decorator.

    Registering an agent registers the actor of its default settings, so only an agent whose settings choose between
    classes of actors needs this. Raises a `ValueError`, one sentence, if the class is no actor or its name is taken.
    """
    _refuse_other_classes(actor_class)
    known = ACTORS.get(actor_class.__name__, actor_class)
    if known is not actor_class and not _is_defined_again(actor_class, known):
        raise ValueError(
            f"The actor {actor_class.__name__} of the module {actor_class.__module__} has the name of another, of the "
            f"module {known.__module__}; give it another name."
        )
    _refuse_field_named_type(actor_class)
    ACTORS[actor_class.__name__] = cast(type[AbstractActor], actor_class)
    return actor_class


def refuse_unknown_actor(agent: AbstractAgent) -> None:
    """Raises a `ValueError`, one sentence, if a registered agent has an actor whose policies could not be read."""
    actor = type(agent.actor).__name__
    if type(agent).__name__ in _agents and actor not in ACTORS:
        raise ValueError(
            f"{type(agent).__name__} has the actor {actor} with these settings, which is not registered, so that its "
            f"policy could not be read; call sorl.register_actor on it."
        )


def published_success(agent_class: type[AbstractAgent], env: str) -> int | None:
    """The published success in percent; None without one, and for an agent derived from the one that has it."""
    settings = agent_class.published.of_task(env) if "published" in vars(agent_class) else None
    return None if settings is None else settings.success


def word(agent_class: type[AbstractAgent]) -> str:
    """An agent's name on the command line: `SorlReleased` is `sorl-released`, `MyDQN` is `my-dqn`."""
    separated = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", agent_class.__name__)
    return separated.replace("_", "-").lower()


def find(name: str, where: str) -> type[AbstractAgent]:
    """The agent with the given name; if it is not registered, the entry points of installed packages are loaded.

    Raises an `UnknownAgent` that begins with `where`, the file that names it. A file cannot cause any other import.
    """
    if name not in _agents:
        load_entry_points()
    return _known(name, _agents, "agent", where)


def find_actor(name: str, where: str) -> type[AbstractActor]:
    """The actor with the given name, found as `find` finds agents; registering an agent registers its actor too."""
    if name not in ACTORS:
        load_entry_points()
    return _known(name, ACTORS, "actor", where)


def _known(name: str, kinds: Mapping[str, Any], noun: str, where: str) -> Any:
    if name in kinds:
        return kinds[name]
    short = f"{name[:60]}.." if len(name) > 60 else name  # the name comes from a file and may be anything
    raise UnknownAgent(
        f"{where} names the {noun} {short!r}{nearest(short, list(kinds))}, which is not registered; the known "
        f"{noun}s are {', '.join(kinds)}: name the module or file of another with --agent-module, or import it first."
    )


def any_agent() -> Any:
    """The union of all registered agents, from which the command line creates its subcommands."""
    import tyro

    # tyro takes the first class that a default is an instance of, so an agent derived from another comes before it.
    kinds = sorted(_agents.values(), key=lambda kind: -sum(issubclass(kind, other) for other in _agents.values()))
    members = (Annotated[kind, tyro.conf.subcommand(name=word(kind))] for kind in kinds)
    return Union[tuple(members)]  # noqa: UP007


def load_entry_points() -> None:
    """Loads each entry point of the group `sorl.agents` once; warns of those that fail."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if point.value in _loaded:
            continue
        _loaded.add(point.value)
        before = set(_agents)
        try:
            point.load()
            _installed.update(_agents.keys() - before)
        except Exception as error:  # a broken package must not stop commands that do not use it
            package = "an installed package" if point.dist is None else point.dist.name
            warnings.warn(
                f"The agents of {package} are not offered, since its entry point {point.name} ({point.value}) failed: "
                f"{type(error).__name__}: {error}.",
                stacklevel=2,
            )


def is_installed(agent_class: type[AbstractAgent]) -> bool:
    """Whether an installed package provides the agent, so that every command finds it."""
    return agent_class.__name__ in _installed


_loaded: set[str] = set()
"""Entry points that have been loaded or have failed."""
_installed: set[str] = set()
"""Names of the agents that these entry points registered."""


def _refuse_unfinished(agent_class: Any) -> None:
    if not (inspect.isclass(agent_class) and issubclass(agent_class, AbstractAgent)):
        raise ValueError(f"{agent_class!r} is no agent; register a class that is derived from sorl.AbstractAgent.")
    name, missing = agent_class.__name__, sorted(getattr(agent_class, "__abstractmethods__", ()))
    if missing:
        raise ValueError(f"The agent {name} has no {', '.join(missing)}; define what sorl.AbstractAgent asks for.")
    required = [
        parameter.name
        for parameter in inspect.signature(agent_class).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    if required:
        raise ValueError(f"The agent {name} has no default for {', '.join(required)}; give each hyper-parameter one.")
    _refuse_field_named_type(agent_class)
    known = {field.name for field in dataclasses.fields(agent_class)}
    for preset, fields in _presets(agent_class):
        if unknown := sorted(fields.keys() - known):
            raise ValueError(
                f"{preset} of the agent {name} sets {', '.join(unknown)}, which is no hyper-parameter; give one of "
                f"{', '.join(sorted(known))}."
            )


def _presets(agent_class: type[AbstractAgent]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The name and the hyper-parameters of each of an agent's presets."""
    yield "quickstart", agent_class.quickstart
    yield "own_logs", agent_class.own_logs
    for env, settings in agent_class.published.settings.items():
        yield f"published[{env!r}]", settings.fields


def _refuse_other_budgets(name: str, budgets: Any) -> None:
    if not isinstance(budgets, Budgets):
        kind = type(budgets).__name__
        raise ValueError(f"budgets of the actor of {name} is a {kind}; make it a property that returns sorl.Budgets.")


def _refuse_other_classes(actor_class: Any) -> None:
    if not (inspect.isclass(actor_class) and issubclass(actor_class, AbstractActor)):
        raise ValueError(f"{actor_class!r} is no actor; register a class that is derived from sorl.AbstractActor.")


def _refuse_field_named_type(kind: Any) -> None:
    if "type" in {field.name for field in dataclasses.fields(kind)}:
        raise ValueError(f"{kind.__name__} has a field named type, where files have its class; give it another name.")


def _refuse_untrainable_values(agent_class: type[AbstractAgent], place: str, values: Mapping[str, Any]) -> None:
    """Refuses hyper-parameters that would be arrays in the compiled update and cannot be, or that files cannot hold.

    **Arguments:** `place`, with which the sentence begins; `values` by the names of the fields.
    """
    static = {field.name: field.metadata.get("static") for field in dataclasses.fields(cast(Any, agent_class))}
    for name, value in values.items():
        if isinstance(value, list) or hasattr(value, "dtype"):
            kind = "a list" if isinstance(value, list) else "an array"
            raise ValueError(
                f"{place}The agent {agent_class.__name__} has {name} = {value!r}, {kind}; give a number, a text or a "
                "tuple of them."
            )
        if isinstance(value, str | bool) and not static[name]:
            raise ValueError(
                f"{place}The agent {agent_class.__name__} has {name} = {value!r}, which the compiled update cannot "
                "take as a number; declare it as eqx.field(static=True, default=..)."
            )


def _is_defined_again(new: type, earlier: type) -> bool:
    """Whether an interactive session (`__main__`) has defined the same class again."""
    places = [(kind.__module__, kind.__qualname__) for kind in (new, earlier)]
    return places[0] == places[1] and places[0][0] == "__main__" and new is not earlier
