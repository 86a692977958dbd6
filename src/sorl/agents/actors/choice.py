"""What the actors that choose among candidates have in common: their networks, their random draws and the choice."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sorl.agents.budget import Budget
from sorl.functional import verifiers
from sorl.networks import CriticEnsemble


class GeneratorAndCritic(eqx.Module):
    """Networks of an actor that draws candidates from a generative model and chooses among them by their values."""

    generator: Any
    """Makes actions from noise: a field, a denoiser or a one-step policy."""
    critic: CriticEnsemble


class SoftmaxDraws(eqx.Module):
    """The random draws of a decision that samples among its candidates, too."""

    noise: Float[Array, "candidates *noise"]
    """Starts the candidates."""
    gumbel: Float[Array, " candidates"]
    """Standard Gumbel noise, one number for each candidate's value."""


CandidateDraws = Float[Array, "candidates *noise"] | SoftmaxDraws
"""Noise for each candidate, and Gumbel noise where the choice among them is random."""


def draw_candidates(noise_shape: tuple[int, ...], budget: Budget, *, key: Key[Array, ""]) -> CandidateDraws:
    """Standard normal noise of this shape for each candidate of one decision, and what a random choice needs."""
    shape = (budget.candidates, *noise_shape)
    if not budget.chooses_by_softmax:
        return jax.random.normal(key, shape, jnp.float32)
    noise_key, choice_key = jax.random.split(key)
    return SoftmaxDraws(
        jax.random.normal(noise_key, shape, jnp.float32), jax.random.gumbel(choice_key, shape[:1], jnp.float32)
    )


def choose(
    candidate: Callable[[Array], Array],
    value: Callable[[Array], Array],
    draws: CandidateDraws,
    budget: Budget,
    aggregation: verifiers.Aggregation,
) -> Float[Array, " action"]:
    """The action that `budget` chooses among those that `candidate` makes from each row of noise.

    **Arguments:** `value(action)`, one number for each critic head; `aggregation` of the heads where the budget names
    none.
    """
    verifier, temperature = verifiers.in_force(budget.verifier, verifiers.named(aggregation))
    if isinstance(draws, SoftmaxDraws):
        noise, perturbation = draws.noise, temperature * draws.gumbel
    else:
        noise, perturbation = draws, None
    return verifiers.choose(candidate, value, budget.noise_scale * noise, verifier, perturbation)
