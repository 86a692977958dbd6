"""Verifiers: they aggregate the critic heads' values, by which the best of N candidates is chosen."""

import abc
import re
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


Aggregation = Literal["mean", "min"]
"""Names of the verifiers that an agent can train with."""

HeadsToValue = Callable[[Array], Array]
"""Aggregates the heads' values over the last axis, as verifiers do."""


class AbstractVerifier(eqx.Module):
    """Aggregates the critic heads' values of an action; fields are static, so that each verifier is one program."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name from which `named` recreates it, such as `min` or `softmax0.5`."""

    @abc.abstractmethod
    def __call__(self, q: Float[Array, "*batch heads"]) -> Float[Array, "*batch"]:
        """Aggregates over the last axis."""


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
    """The minimum of the heads, which reduces over-estimation (Fujimoto et al., "TD3", 2018)."""

    @property
    def name(self) -> str:
        """`min`."""
        return "min"

    def __call__(self, q: Float[Array, "*batch heads"]) -> Float[Array, "*batch"]:
        """The minimum over the last axis."""
        return jnp.min(q, axis=-1)


def lower_bound(q: Float[Array, "*batch heads"], k: float | Float[Array, ""]) -> Float[Array, "*batch"]:
    """The mean minus k population standard deviations over the last axis; `k` may be an array, and has a gradient.

    Where all heads agree, the deviation's gradient is 0 (without this case it would not be a number).
    """
    variance = jnp.var(q, axis=-1)
    agree = variance == 0
    deviation = jnp.where(agree, 0.0, jnp.sqrt(jnp.where(agree, 1.0, variance)))
    return jnp.mean(q, axis=-1) - k * deviation


class LowerBound(AbstractVerifier):
    """The mean minus k standard deviations of the heads, which penalises their disagreement."""

    k: float = eqx.field(static=True)
    """Number of standard deviations, >= 0; with a single head it has no effect."""

    def __check_init__(self):
        _refuse_other_numbers("k", self.k, 0 <= self.k < float("inf"), "a finite number >= 0")

    @property
    def name(self) -> str:
        """`lower-bound` followed by k."""
        return f"lower-bound{self.k!r}"

    def __call__(self, q: Float[Array, "*batch heads"]) -> Float[Array, "*batch"]:
        """The mean minus k population standard deviations over the last axis."""
        return lower_bound(q, self.k)


class Softmax(AbstractVerifier):
    """Draws candidate i with a probability proportional to exp(Q_i / temperature) instead of taking the best."""

    temperature: float = eqx.field(static=True)
    """Temperature > 0, in units of Q; with a very large one, all candidates are equally likely."""
    heads: AbstractVerifier | None = eqx.field(static=True, default=None)
    """How the heads are aggregated to Q_i; None: by the agent's own verifier."""

    def __check_init__(self):
        _refuse_other_numbers("temperature", self.temperature, 0 < self.temperature < float("inf"), "a finite one > 0")

    @property
    def name(self) -> str:
        """`softmax` followed by the temperature, after the name of `heads` if there is one."""
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
    """The verifier with the given name; raises a `ValueError` that lists the names if there is none.

    The names are `mean`, `min`, `lower-boundK`, `softmaxT`, and one of the first three followed by `-softmaxT`, such as
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
    """The verifier that aggregates the heads, and the temperature of the choice (0: the best is taken).

    **Arguments:** `asked`, the budget's verifier; `own`, the agent's, which is used if `asked` is None or a `Softmax`
    without an aggregation of the heads.
    """
    if isinstance(asked, Softmax):
        return asked.heads or own, asked.temperature
    return asked or own, 0.0


def aggregate(q: Float[Array, "*batch heads"], verifier: Aggregation | HeadsToValue) -> Float[Array, "*batch"]:
    """Aggregates the heads' values by a verifier, its name, or any function like one."""
    return (named(verifier) if isinstance(verifier, str) else verifier)(q)


def best_of_n(
    candidates: Float[Array, "candidates action"],
    q: Float[Array, "candidates heads"],
    verifier: Aggregation | AbstractVerifier,
    perturbation: Float[Array, " candidates"] | None = None,
) -> tuple[Float[Array, " action"], Int[Array, ""]]:
    """The candidate with the highest aggregated value (the first if there are several), and its index.

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
    """The best candidate action for one observation.

    **Arguments:** `candidate`, the map from one row of `draws` to an action; `value`, the map from an action to one
    value per critic head; with a single row it is not called. `perturbation` as for `best_of_n`.
    """
    if len(draws) == 1:
        return candidate(draws[0])  # without vmap, which would round differently for a single row
    candidates = jax.vmap(candidate)(draws)
    return best_of_n(candidates, jax.vmap(value)(candidates), verifier, perturbation)[0]
