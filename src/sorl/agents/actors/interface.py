"""What every actor offers: a frozen module of what decides how a policy acts, with `template`, `draw_action`, `act`."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents.budget import Budget, Budgets
from sorl.agents.shared.settings import refuse_absurd_values


class AbstractActor(eqx.Module):
    """How trained networks act: its fields are all that acting needs beside the networks themselves.

    Several algorithms share one kind of actor. A policy file stores the actor, and nothing of how it was trained. All
    randomness is data: `draw_action` makes the random draws of one decision, and `act` is a function of them.
    """

    def __check_init__(self):
        refuse_absurd_values(self)

    @property
    @abc.abstractmethod
    def budgets(self) -> Budgets:
        """The compute budgets that it acts at, and those that it is evaluated at."""

    @property
    def actions_at_once(self) -> int:
        """Actions of one decision, carried out one after the other: the field `chunk` where an actor has it, else 1."""
        return getattr(self, "chunk", 1)

    @abc.abstractmethod
    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The structure of its networks: a `jax.ShapeDtypeStruct` for each array.

        **Arguments:** `action_size`, of a decision: here and below the length of an action times `actions_at_once`.
        """

    @abc.abstractmethod
    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> PyTree:
        """The random draws of one decision for one observation."""

    @abc.abstractmethod
    def act(
        self, networks: Any, observation: Float[Array, " observation"], draws: Any, budget: Budget
    ) -> Float[Array, " action"]:
        """One decision for one observation, its actions one after the other, in [-1, 1]; the caller vmaps."""


Actor = TypeVar("Actor", bound=AbstractActor)


def actor_of(kind: type[Actor], agent: Any) -> Actor:
    """The actor of this kind whose fields are the agent's fields of the same names; the others keep their defaults."""
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: getattr(agent, name) for name in names if hasattr(agent, name)})


def structure(make: Callable[[Key[Array, ""]], PyTree]) -> PyTree:
    """The structure of the networks that `make` returns for a key, in single precision; computes nothing."""
    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    # Not the shapes' own type, which is float64 where JAX_ENABLE_X64 is set.
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), shapes)
