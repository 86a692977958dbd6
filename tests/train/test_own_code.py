"""Errors of a user's agent: one sentence with the place, before training begins."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from sorl.agents import Bc, Budget, Budgets
from sorl.agents.actors import actor_of
from sorl.train import loop

from .. import synthetic


class Mine(Bc):
    """Clones."""


def with_method(name: str, method: Any) -> Any:
    return type("Mine", (Mine,), {name: method, "__module__": __name__})()


def begin(agent: Any) -> Any:
    return loop.init(agent, synthetic.dataset(), (0,), batch_size=8)


@pytest.mark.parametrize("method", ["init", "draw", "draw_shared", "update", "losses"])
def test_an_error_is_told_with_its_method_and_place(method):
    def broken(self, *_, **__):
        raise TypeError("no such thing\nat all")

    line = broken.__code__.co_firstlineno + 1
    message = rf"Mine.{method} failed with TypeError: no such thing at all \(line {line} of test_own_code.py\); mend it"
    with pytest.raises(ValueError, match=message) as found:
        begin(with_method(method, broken))
    assert isinstance(found.value.__cause__, TypeError)


def test_the_place_is_the_users_line_that_called_another_package():
    def broken(self, *_, **__):
        return jnp.zeros(3) + jnp.zeros(4)

    with pytest.raises(ValueError, match=rf"\(line {broken.__code__.co_firstlineno + 1} of test_own_code.py\)"):
        begin(with_method("update", broken))


@pytest.mark.parametrize(
    ("method", "found", "message"),
    [
        ("losses", {"a_loss": jnp.zeros(3)}, r"metric a_loss of Mine is an array of shape \[3\].*let losses return"),
        ("losses", {}, "Mine.losses returns no metric; let it return at least one scalar float by name"),
        ("update", (None, {}), "Mine.update returns no metric; let it return at least one scalar float by name"),
    ],
)
def test_metrics_of_both_methods_are_scalar_floats(method, found, message):
    with pytest.raises(ValueError, match=message):
        begin(with_method(method, lambda *_: found))


class OtherActor(type(Bc().actor)):
    """An actor whose methods a test replaces."""


def _with_actor(**methods):
    kind = type("Odd", (OtherActor,), {**methods, "__module__": __name__})
    return property(lambda self: actor_of(kind, self))


STEPS_OF_TWO_KINDS = property(lambda self: Budgets(Budget(1), (1, 4), (1,), (1,), False, False))


def _acts_in_one_step_only(self, networks, observation, draws, budget):
    return jnp.zeros(2) if budget.inference_steps == 1 else 1 / 0


def _doubled(self, state, *_):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state), {"a_loss": jnp.zeros(())}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"update": lambda self, state, *_: state},
            r"Mine.update returns a \w+; return the pair of the next state and",
        ),
        ({"update": lambda self, state, *_: ({}, state)}, r"Mine.update returns \(dict, \w+\); return the pair"),
        (
            {"update": _doubled},
            r"a state whose \S+ is float16\[.*, but that of init is float32\[.* at \S+; return a state",
        ),
        ({"update": lambda *_: ((), {"a_loss": jnp.zeros(())})}, "a state of 0 arrays whose structure is not that of"),
        (
            {"losses": lambda *_: (jnp.zeros(()), {})},
            "Mine.losses returns a tuple; let it return a dictionary of scalar",
        ),
        ({"losses": lambda *_: {"a_loss": None}}, "The metric a_loss of Mine is None; let losses return scalar floats"),
        ({"losses": lambda *_: {"a/b": jnp.zeros(())}}, "a metric named 'a/b'; name it by letters, digits and under"),
        (
            {"losses": lambda *_: {"value_excess": jnp.zeros(())}},
            "a metric named 'value_excess'; .* training logs itself",
        ),
        (
            {"policy": lambda self, state: ()},
            r"Mine.policy returns the arrays none, but .* describes float32\[.* more; let",
        ),
        (
            {"actor": _with_actor(act=lambda *_: jnp.zeros((1, 2)))},
            r"actor returns an array of float32\[1, 2\] at M1N1; .* \[2\]",
        ),
        (
            {"actor": _with_actor(act=lambda *_: 1 / 0)},
            r"Mine.actor.act at M1N1 failed with ZeroDivisionError: .* \(line \d+ of te",
        ),
        (
            {"actor": _with_actor(budgets=STEPS_OF_TWO_KINDS, act=_acts_in_one_step_only)},
            r"Mine.actor.act at M4N1 failed with ZeroDivisionError: .* \(line \d+ of te",
        ),
        (
            {"chunk": eqx.field(static=True, default=2), "__annotations__": {"chunk": int}},
            r"Mine trains with 2 actions per decision \(its field chunk\), but its actor, GaussianActor, gives 1; give",
        ),
        (
            {"init": lambda self, *_, key: jnp.zeros(self.learning_rate)},
            r"init failed .*; declare what shapes the prog",
        ),
    ],
)
def test_what_methods_return_is_checked_before_training(changes, message):
    agent: Any = type("Mine", (Mine,), {**changes, "__module__": __name__})()
    with pytest.raises(ValueError, match=message):
        begin(agent)


def test_errors_of_the_packages_agents_are_not_renamed(monkeypatch):
    def broken(self, *_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr(Bc, "update", broken)
    with pytest.raises(TypeError, match="a bug"):
        begin(Bc())
