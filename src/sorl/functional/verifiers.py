"""Verifiers: how the values of all critic heads become one, and how the best of N candidates is chosen by it."""

import abc
import re
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


Aggregation = Literal["mean", "min"]
"""The verifiers that an agent can train with, by name."""


class AbstractVerifier(eqx.Module):
    """Values an action by the values that all critic heads give it; static, so that each is one compiled program."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What `named` makes it of again, such as `min` or `softmax0.5`."""

    @abc.abstractmethod
    def __call__(self, q: Float[Array, "*batch heads"]) -> Float[Array, "*batch"]:
        """One value from all heads."""


class Mean(AbstractVerifier):
    """The mean of the heads."""

    @property
    def name(self) -> str:
        """`mean`."""
        return "mean"

    def __call__(self, q: Float[Array, "*batch heads"]) -> Float[Array, "*batch"]:
        """The mean over the last axis."""
        return jnp.mean(q, axis=-1)


class Min(AbstractVerifier):
    """The minimum of the heads, against over-estimation (Fujimoto et al., "TD3", 2018)."""

    @property
    def name(self) -> str:
        """`min`."""
        return "min"

    def __call__(self, q: Float[Array, "*batch heads"]) -> Float[Array, "*batch"]:
        """The minimum over the last axis."""
        return jnp.min(q, axis=-1)


class LowerBound(AbstractVerifier):
    """The mean minus k standard deviations of the heads: a penalty on what they disagree about."""

    k: float = eqx.field(static=True)
    """Number of standard deviations, >= 0; with a single head it has no effect."""

    def __check_init__(self):
        _refuse_other_numbers("k", self.k, 0 <= self.k < float("inf"), "a finite number >= 0")

    @property
    def name(self) -> str:
        """`lower-bound` and k."""
        return f"lower-bound{self.k!r}"

    def __call__(self, q: Float[Array, "*batch heads"]) -> Float[Array, "*batch"]:
        """Mean minus k times the population's standard deviation over the last axis."""
        return jnp.mean(q, axis=-1) - self.k * jnp.std(q, axis=-1)


class Softmax(AbstractVerifier):
    """Draws candidate i with a probability proportional to exp(Q_i / temperature) instead of taking the best."""

    temperature: float = eqx.field(static=True)
    """Above 0, in units of Q; a large temperature is one plain sample."""
    heads: AbstractVerifier | None = eqx.field(static=True, default=None)
    """How the heads become Q_i; None: as the agent's own."""

    def __check_init__(self):
        _refuse_other_numbers("temperature", self.temperature, 0 < self.temperature < float("inf"), "a finite one > 0")

    @property
    def name(self) -> str:
        """`softmax` and the temperature, after the name of `heads`."""
        return f"{'' if self.heads is None else self.heads.name + '-'}softmax{self.temperature!r}"

    def __call__(self, q: Float[Array, "*batch heads"]) -> Float[Array, "*batch"]:
        """The Q_i, without the random choice."""
        return (self.heads or Mean())(q)


def _refuse_other_numbers(name: str, value: float, fits: bool, expected: str) -> None:
    if type(value) not in (int, float) or not fits:
        raise ValueError(f"The verifier's {name} is {value!r}; give {expected}.")


_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_NAME = re.compile(rf"(?:(mean|min)|lower-bound{_NUMBER})?(?:(?:^|(?<=.)-)softmax{_NUMBER})?")


def named(name: str) -> AbstractVerifier:
    """The verifier of a name; raises a `ValueError` that lists the names.

    The names are `mean`, `min`, `lower-boundK`, `softmaxT` and each of the first three before `-softmaxT`, such as
    `min-softmax0.5`.
    """
    found = _NAME.fullmatch(name)
    if not name or found is None:
        raise ValueError(
            f"The verifier is {name!r}; give mean, min, lower-bound1 (mean minus 1 standard deviation of the heads), "
            "softmax0.5 (a draw at temperature 0.5), or two of them such as min-softmax0.5."
        )
    plain, k, temperature = found.groups()
    heads = LowerBound(float(k)) if k else {"mean": Mean(), "min": Min(), None: None}[plain]
    if temperature is None:
        assert heads is not None  # the name is not empty
        return heads
    return Softmax(float(temperature), heads)


def in_force(asked: AbstractVerifier | None, own: AbstractVerifier) -> tuple[AbstractVerifier, float]:
    """How heads become one value, and the temperature of the choice (0: the best is taken).

    **Arguments:** `asked` of a budget; `own`, the agent's, which fills what `asked` leaves open.
    """
    if isinstance(asked, Softmax):
        return asked.heads or own, asked.temperature
    return asked or own, 0.0


def aggregate(q: Float[Array, "*batch heads"], verifier: Aggregation | AbstractVerifier) -> Float[Array, "*batch"]:
    """One value from all heads, by a verifier or the name of one."""
    return (named(verifier) if isinstance(verifier, str) else verifier)(q)


def best_of_n(
    candidates: Float[Array, "candidates action"],
    q: Float[Array, "candidates heads"],
    verifier: Aggregation | AbstractVerifier,
    perturbation: Float[Array, " candidates"] | None = None,
) -> tuple[Float[Array, " action"], Int[Array, ""]]:
    """The candidate with the highest aggregated value for one observation (the first, if several), and its index.

    `perturbation` is added to the values: Gumbel noise times a temperature T makes the choice a sample from
    softmax(Q / T) (the Gumbel-max trick: Maddison et al., "A* Sampling", NeurIPS 2014).
    """
    values = aggregate(q, verifier)
    index = jnp.argmax(values if perturbation is None else values + perturbation)
    return candidates[index], index


def choose(
    candidate: Callable[[Array], Array],
    value: Callable[[Array], Array],
    draws: Float[Array, "candidates ..."],
    verifier: Aggregation | AbstractVerifier,
    perturbation: Float[Array, " candidates"] | None = None,
) -> Float[Array, " action"]:
    """The best of the actions that `candidate` makes from each row of `draws`, by `value(action)`, one for each head.

    With one row the critic is not asked; `perturbation` as for `best_of_n`.
    """
    if len(draws) == 1:
        return candidate(draws[0])  # not vmapped over a single row, which would round differently
    candidates = jax.vmap(candidate)(draws)
    return best_of_n(candidates, jax.vmap(value)(candidates), verifier, perturbation)[0]
