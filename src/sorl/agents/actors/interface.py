"""The interface of every actor: a frozen module of settings with `template`, `draw_action` and `act`."""

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
    """Defines how trained networks act; its fields hold everything that acting needs except the networks.

    Several algorithms may share one kind of actor. A policy file stores the actor, not the agent that trained it. All
    randomness is passed as data: `draw_action` makes the random draws of one decision, and `act` is a deterministic
    function of them.
    """

    def __check_init__(self):
        refuse_absurd_values(self)

    @property
    @abc.abstractmethod
    def budgets(self) -> Budgets:
        """The compute budgets that it supports, and those of its evaluations."""

    @property
    def actions_at_once(self) -> int:
        """Number of actions per decision, executed open-loop: the field `chunk` if the actor has it, else 1."""
        return getattr(self, "chunk", 1)

    @abc.abstractmethod
    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The structure of its networks, with a `jax.ShapeDtypeStruct` for each array.

        **Arguments:** `action_size`, the size of one decision, here and below: the length of an action times
        `actions_at_once`.
        """

    @abc.abstractmethod
    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> PyTree:
        """The random draws of one decision for one observation."""

    @abc.abstractmethod
    def act(
        self, networks: Any, observation: Float[Array, " observation"], draws: Any, budget: Budget
    ) -> Float[Array, " action"]:
        """One decision for one observation: its actions, concatenated, in [-1, 1]; callers use `vmap` for batches."""


Actor = TypeVar("Actor", bound=AbstractActor)


def actor_of(kind: type[Actor], agent: Any) -> Actor:
    """Creates an actor of this kind from the agent's fields of the same names; other fields keep their defaults."""
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: getattr(agent, name) for name in names if hasattr(agent, name)})


def structure(make: Callable[[Key[Array, ""]], PyTree]) -> PyTree:
    """The structure of the networks that `make` returns for a key, in single precision, without computing them."""
    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    # The dtype of `shapes` is not used, because it is float64 if JAX_ENABLE_X64 is set.
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), shapes)
