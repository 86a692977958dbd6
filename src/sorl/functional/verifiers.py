"""Verifiers: how the values of all critic heads become one, and how the best of N candidates is chosen by it."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


Aggregation = Literal["mean", "min"]


def aggregate(q: Float[Array, "*batch heads"], aggregation: Aggregation) -> Float[Array, "*batch"]:
    """One value from all heads: their mean, or their minimum against over-estimation."""
    return jnp.mean(q, axis=-1) if aggregation == "mean" else jnp.min(q, axis=-1)


def best_of_n(
    candidates: Float[Array, "candidates action"],
    q: Float[Array, "candidates heads"],
    aggregation: Aggregation,
    perturbation: Float[Array, " candidates"] | None = None,
) -> tuple[Float[Array, " action"], Int[Array, ""]]:
    """The candidate with the highest aggregated value for one observation (the first, if several), and its index.

    `perturbation` is added to the values: Gumbel noise times a temperature T makes the choice a sample from
    softmax(Q / T) (the Gumbel-max trick: Maddison et al., "A* Sampling", NeurIPS 2014).
    """
    values = aggregate(q, aggregation)
    index = jnp.argmax(values if perturbation is None else values + perturbation)
    return candidates[index], index


def choose(
    candidate: Callable[[Array], Array],
    value: Callable[[Array], Array],
    draws: Float[Array, "candidates ..."],
    aggregation: Aggregation,
    perturbation: Float[Array, " candidates"] | None = None,
) -> Float[Array, " action"]:
    """The best of the actions that `candidate` makes from each row of `draws`, by `value(action)`, one for each head.

    With one row the critic is not asked; `perturbation` as for `best_of_n`.
    """
    if len(draws) == 1:
        return candidate(draws[0])  # not vmapped over a single row, which would round differently
    candidates = jax.vmap(candidate)(draws)
    return best_of_n(candidates, jax.vmap(value)(candidates), aggregation, perturbation)[0]
