"""Checks of a user's own agent before it trains, and its errors as one sentence with the method and the line."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from sorl.agents import AbstractAgent, Budget
from sorl.agents.shared.metrics import refuse_unusable
from sorl.system.error_places import users_line


@contextlib.contextmanager
def errors_of(agent: AbstractAgent, method: str) -> Iterator[None]:
    """Turns an error of a user's agent into a `ValueError`, one sentence; errors of this package's agents stay."""
    try:
        yield
    except Exception as error:  # the user's code may raise anything
        if not is_own(agent):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        shown = reason if len(reason) <= 300 else f"{reason[:300]}.."
        where = users_line(error)
        remedy = "declare what shapes the program as eqx.field(static=True)" if _needs_numbers(error) else "mend it"
        raise ValueError(
            f"{type(agent).__name__}.{method} failed with {type(error).__name__}: {shown}"
            f"{'' if where is None else f' ({where})'}; {remedy}."
        ) from error


def _needs_numbers(error: Exception) -> bool:
    """Whether code needed a number where JAX had only a traced array, such as a hyper-parameter as a size."""
    kinds = (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.TracerArrayConversionError,
    )
    return isinstance(error, kinds) or "concrete values" in str(error)


def refuse_other_results(agent: AbstractAgent, state: Any, updated: Any) -> None:
    """Raises a `ValueError` unless an `update` returns scalar metrics and, of a user's agent, a state like init's.

    **Arguments:** `updated`, the shapes and types of what `update` returns.
    """
    name = type(agent).__name__
    if not isinstance(updated, tuple) or len(updated) != 2 or not isinstance(updated[1], Mapping):
        raise ValueError(
            f"{name}.update returns {_kinds(updated)}; return the pair of the next state and a dictionary of metrics."
        )
    refuse_unusable(name, updated[1])
    if not is_own(agent):
        return
    before, after = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (state, updated[0]))
    for (place, old), (other, new) in zip(before, after, strict=False):
        if place != other or (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"{name}.update returns a state whose {jax.tree_util.keystr(other)} is {_array(new)}, but that of init "
                f"is {_array(old)} at {jax.tree_util.keystr(place)}; return a state with the same arrays."
            )
    if len(before) != len(after) or jax.tree.structure(state) != jax.tree.structure(updated[0]):
        raise ValueError(
            f"{name}.update returns a state of {len(after)} arrays whose structure is not that of init's "
            f"{len(before)}; return a state like the one before."
        )


def refuse_unusable_policy(agent: AbstractAgent, state: Any, observation_size: int, action_size: int) -> None:
    """Raises a `ValueError` if the policy of a user's agent could not be loaded from its file, or not act.

    Its actor must give as many actions at once as the agent trains with, its arrays must be those of the actor's
    `template`, and `act` must return one decision, [action_size], at each budget that is evaluated by default.
    """
    if not is_own(agent):
        return
    name, actor = type(agent).__name__, agent.actor
    if actor.actions_at_once != agent.window.chunk:
        raise ValueError(
            f"{name} trains with {agent.window.chunk} actions per decision (its field chunk), but its actor, "
            f"{type(actor).__name__}, gives {actor.actions_at_once}; give the actor the field chunk, with the same "
            "value."
        )
    with errors_of(agent, "policy"):
        networks = jax.eval_shape(lambda agent, state: agent.policy(state), agent, state)
    with errors_of(agent, "actor.template"):
        template = jax.tree.leaves(jax.eval_shape(lambda: actor.template(observation_size, action_size)))
    found, expected = ([_array(leaf) for leaf in leaves] for leaves in (jax.tree.leaves(networks), template))
    if found != expected:
        raise ValueError(
            f"{name}.policy returns the arrays {_listed(found)}, but the template of its actor describes "
            f"{_listed(expected)}; let both be the networks with which it acts, in float32."
        )
    for budget in dict.fromkeys([actor.budgets.usual, *actor.budgets.grid(None, None, final=True)]):
        _refuse_unusable_act(agent, networks, budget, observation_size, action_size)


def _refuse_unusable_act(agent: AbstractAgent, networks: Any, budget: Budget, observations: int, actions: int) -> None:
    actor, key = agent.actor, jax.random.key(0)
    observation = jax.ShapeDtypeStruct((observations,), jnp.float32)
    with errors_of(agent, f"actor.draw_action at {budget.name}"):
        draws = jax.eval_shape(lambda key: actor.draw_action(actions, budget, key=key), key)
    with errors_of(agent, f"actor.act at {budget.name}"):
        action = jax.eval_shape(
            lambda networks, observation, draws: actor.act(networks, observation, draws, budget),
            networks,
            observation,
            draws,
        )
    if getattr(action, "shape", None) != (actions,):
        raise ValueError(
            f"The act of {type(agent).__name__}'s actor returns {_kinds(action)} at {budget.name}; return one action, "
            f"an array of shape [{actions}]."
        )


def _kinds(value: Any) -> str:
    """What a method returned, in words."""
    if hasattr(value, "shape"):
        return f"an array of {_array(value)}"
    if isinstance(value, tuple):
        return f"({', '.join(type(part).__name__ for part in value)})"
    return f"a {type(value).__name__}"


def _array(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _listed(arrays: Sequence[str], most: int = 4) -> str:
    more = f" and {len(arrays) - most} more" if len(arrays) > most else ""
    return ", ".join(arrays[:most]) + more if arrays else "none"


def refuse_unusable_losses(agent: AbstractAgent, state: Any, *arguments: Any) -> None:
    """Raises a `ValueError` if the `losses` of a user's agent fail or are no scalar floats; others are tested."""
    if is_own(agent):
        with errors_of(agent, "losses"):
            found = jax.eval_shape(partial(type(agent).losses, agent), state, *arguments)
        refuse_unusable(type(agent).__name__, found, "losses")


def is_own(agent: AbstractAgent) -> bool:
    """Whether the agent is a user's own."""
    return type(agent).__module__.partition(".")[0] != "sorl"
