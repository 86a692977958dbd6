"""Errors of a user's agent: one sentence with the place, before training begins."""

from typing import Any

import jax.numpy as jnp
import pytest

from sorl.agents import Bc
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


def test_errors_of_the_packages_agents_are_not_renamed(monkeypatch):
    def broken(self, *_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr(Bc, "update", broken)
    with pytest.raises(TypeError, match="a bug"):
        begin(Bc())
