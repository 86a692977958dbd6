"""A population: training seeds times values of the agent's float hyper-parameters, trained by one program."""

import dataclasses
import itertools
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import tyro

from sorl.agents import AbstractAgent
from sorl.statistics.rows import SETTING as PREFIX, settings_text
from sorl.system.names import nearest


@dataclasses.dataclass(frozen=True)
class Varied:
    """A hyper-parameter of the agent with the values that a population has of it."""

    field: str
    """The dotted name of a float field of the agent, such as `agent.q_coefficient`."""
    values: tuple[float, ...]
    """The values, each once."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A member of a population, or a seed of a run without one: its number, seed and settings, and its agent."""

    kind: Literal["seed", "member"]
    """The meaning of its number, also in names of files; `seed` without a population."""
    number: int
    """Its training seed without a population, else its place in the population."""
    seed: int
    """Its training seed."""
    settings: Mapping[str, float]
    """The values of the varied hyper-parameters, by dotted name; empty without a population."""
    agent: AbstractAgent
    """The agent with those values."""

    @property
    def label(self) -> str:
        """The beginning of messages: `Seed 0`, or `Member 3 (agent.q_coefficient 10, seed 1)` in a population."""
        values = f" ({settings_text(self.settings)}, seed {self.seed})" if self.settings else ""
        return f"{self.kind.capitalize()} {self.number}{values}"

    def columns(self, seed: str = "seed") -> dict[str, Any]:
        """The columns of a row that identify it: its seed, named `seed`, and in a population its number and values."""
        return ({"member": self.number} if self.settings else {}) | {seed: self.seed} | dict(self.settings)


def members(agent: AbstractAgent, seeds: Sequence[int], population: Sequence[Varied]) -> dict[int, Member]:
    """The members of a run in order: by training seed without a population, else by number.

    A population has every combination of values, the last field's values changing fastest, each with every seed; the
    seeds change fastest of all. Raises a `ValueError` if a field cannot vary or the agent refuses a value.
    """
    if not population:
        return {seed: Member("seed", seed, seed, {}, agent) for seed in seeds}
    for varied in population:
        _refuse_unvarying(agent, varied)
    names = [varied.field for varied in population]
    if len(set(names)) < len(names):
        raise ValueError(f"population names {', '.join(names)}; give each field once, with all of its values.")
    found: dict[int, Member] = {}
    for values in itertools.product(*(varied.values for varied in population)):
        settings = dict(zip(names, values, strict=True))
        fields: dict[str, Any] = {name.removeprefix(PREFIX): value for name, value in settings.items()}
        own = dataclasses.replace(agent, **fields)
        for seed in seeds:
            found[len(found)] = Member("member", len(found), seed, settings, own)
    return found


def _refuse_unvarying(agent: AbstractAgent, varied: Varied) -> None:
    """Raises a `ValueError`, one sentence, unless the agent has the float field and the values are different ones."""
    known = varying_fields(type(agent))
    if varied.field not in known:
        name = varied.field.removeprefix(PREFIX)
        exists = varied.field.startswith(PREFIX) and name in {field.name for field in dataclasses.fields(agent)}
        near = f"is no field of {type(agent).__name__}{nearest(varied.field, known)}"
        raise ValueError(
            f"population varies {varied.field}, which {'is no float or shapes the program' if exists else near}; a "
            f"population can vary {', '.join(known) or 'nothing of this agent'}."
        )
    if not varied.values:
        raise ValueError(f"population gives {varied.field} no number; give at least one behind it.")
    if len(set(varied.values)) < len(varied.values):
        raise ValueError(f"population gives {varied.field} the values {varied.values}; give each once.")


def varying_fields(agent_class: type[AbstractAgent]) -> list[str]:
    """The dotted names of the fields of an agent that a population can vary: floats that do not shape the program."""
    hints = typing.get_type_hints(agent_class)
    return [
        f"{PREFIX}{field.name}"
        for field in dataclasses.fields(agent_class)
        if not field.metadata.get("static") and (hints[field.name] is float or hints[field.name] == float | None)
    ]


def _from_words(words: list[str]) -> tuple[Varied, ...]:
    """Reads `FIELD VALUE .. FIELD VALUE ..`: every word that is no number begins a new field."""
    found: list[Varied] = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            found.append(Varied(word.replace("-", "_"), ()))
            continue
        if not found:
            raise ValueError(f"{word} has no field; give a field of the agent before its values.")
        found[-1] = dataclasses.replace(found[-1], values=(*found[-1].values, value))
    return tuple(found)


def _to_words(population: tuple[Varied, ...]) -> list[str]:
    return [word for varied in population for word in (varied.field, *map(str, varied.values))]


def _is_population(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, Varied) for item in value)


Population = Annotated[
    tuple[Varied, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[FIELD VALUE [VALUE ...]] ...",
        instance_from_str=_from_words,
        is_instance=_is_population,
        str_from_instance=_to_words,
    ),
]
"""The type of an option `--population FIELD VALUE [VALUE ...] ...`."""
