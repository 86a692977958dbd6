"""Networks, budgets, random draws and the choice, shared by the actors that choose among candidates."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents.actors.interface import structure
from sorl.agents.budget import Budget, Budgets
from sorl.functional import verifiers
from sorl.networks import CriticEnsemble


class GeneratorAndCritic(eqx.Module):
    """The networks of an actor that samples candidates from a generative model and chooses among them by Q."""

    generator: Any
    """Maps noise to actions: a field, a denoiser or a one-step policy."""
    critic: CriticEnsemble


def template_with_critic(
    make_generator: Callable[[Key[Array, ""]], Any],
    observation_size: int,
    action_size: int,
    hidden_sizes: Sequence[int],
    *,
    heads: int,
    sees_steps: bool = False,
) -> PyTree:
    """The structure of a generator and a critic.

    **Arguments:** `make_generator`, the map from a key to the generator; the others are those of the `CriticEnsemble`.
    """

    def make(key):
        critic = CriticEnsemble(
            observation_size, action_size, hidden_sizes, heads=heads, sees_steps=sees_steps, key=key
        )
        return GeneratorAndCritic(make_generator(key), critic)

    return structure(make)


def critic_values(
    actor: Any,
    networks: PyTree,
    observation: Float[Array, "batch observation"],
    action: Float[Array, "batch action"],
    budget: Budget,
) -> Float[Array, "batch heads"] | None:
    """The values that a policy's own critic gives to actions at a budget; None if its networks hold no critic.

    **Arguments:** `actor`; if its critic sees the number of steps, its method `critic_steps(budget)` gives that number;
    `observation` and `action` in the networks' units.
    """
    if not isinstance(networks, GeneratorAndCritic):
        return None
    if not networks.critic.sees_steps:
        return networks.critic(observation, action)
    return networks.critic(observation, action, jnp.full(len(action), actor.critic_steps(budget), action.dtype))


def sampling_budgets(steps: int, candidates: int, evaluated: tuple[int, ...]) -> Budgets:
    """Any number of steps and candidates.

    **Arguments:** `steps` and `candidates`, the usual ones; `evaluated`, the numbers of candidates in evaluations,
    which use `steps`.
    """
    return Budgets(
        usual=Budget(inference_steps=steps, candidates=candidates),
        inference_steps=(steps,),
        candidates=evaluated,
        trained_steps=(steps,),
        other_inference_steps=True,
        other_candidates=True,
        other_verifiers=True,
    )


class SoftmaxDraws(eqx.Module):
    """The random draws of a decision whose choice among the candidates is random too."""

    noise: Float[Array, "candidates *noise"]
    """Initial noise of the candidates."""
    gumbel: Float[Array, " candidates"]
    """Standard Gumbel noise, which is added to the candidates' values."""


CandidateDraws = Float[Array, "candidates *noise"] | SoftmaxDraws
"""Noise for each candidate, and Gumbel noise if the choice among them is random."""


def draw_candidates(noise_shape: tuple[int, ...], budget: Budget, *, key: Key[Array, ""]) -> CandidateDraws:
    """Standard normal noise of this shape for each candidate, and Gumbel noise if the choice is random."""
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
    """Chooses one of the candidate actions by the verifier of `budget`.

    **Arguments:** `candidate`, the map from one row of noise to an action; `value`, the map from an action to one value
    per critic head; `aggregation` of the heads, used if the budget's verifier names none.
    """
    verifier, temperature = verifiers.in_force(budget.verifier, verifiers.named(aggregation))
    if isinstance(draws, SoftmaxDraws):
        noise, perturbation = draws.noise, temperature * draws.gumbel
    else:
        noise, perturbation = draws, None
    return verifiers.choose(candidate, value, budget.noise_scale * noise, verifier, perturbation)
