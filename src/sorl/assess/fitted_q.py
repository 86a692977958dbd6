"""Fitted Q evaluation of a policy at several budgets, and of the behaviour in the logs, as one compiled program."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from sorl.agents import Budget
from sorl.agents.actors import AbstractActor
from sorl.agents.shared.settings import refuse_no_layers
from sorl.assess.acting import decision_size, in_blocks, varying
from sorl.assess.trajectories import Trajectories, ValueScale, value_scale
from sorl.data.transitions import Dataset, Transition, Window
from sorl.functional import optimisation
from sorl.functional.fitted_q import fitted_q_target, standardised_reward
from sorl.functional.means import mean_over
from sorl.networks import CriticEnsemble
from sorl.policy import Policy
from sorl.system.ranges import MAX_COUNT, refuse_outside


# Each use of randomness has its own stream.
_INIT, _UPDATE = range(2)

CHUNK = 500
"""Most updates of one call of the compiled program; it does not change the result."""
BEHAVIOUR = 0
"""The place of the behaviour in the logs among the evaluated policies; the policy's budgets follow it."""


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How the critics of the fitted Q evaluation are trained."""

    updates: int = 10_000
    """Number of updates; more if the notes say that the values still moved."""
    heads: int = 2
    """Critic heads, each with its own targets: their disagreement shows what the data do not determine."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of each head's hidden layers, in units."""
    batch_size: int = 256
    """Transitions of one update."""
    learning_rate: float = 1e-3
    """Adam's learning rate; it falls linearly to a tenth."""
    target_rate: float = 0.05
    """Share of the trained critic that enters its moving average, which makes the targets, at each update."""
    seed: int = 0
    """Seed of the fit and of the policy's noise."""

    def __post_init__(self):
        refuse_no_layers("hidden_sizes", self.hidden_sizes)
        refuse_outside(
            self,
            updates=(1, MAX_COUNT),
            heads=(1, 1024),
            batch_size=(1, 2**20),
            learning_rate=(1e-9, 1.0),
            target_rate=(1e-6, 1.0),
            seed=(0, 2**32 - 1),
        )


class Problem(eqx.Module):
    """What is evaluated, and in which units."""

    actor: AbstractActor
    networks: PyTree
    varying: Bool[Array, " action"]
    """Whether each number of a decision varied in the logs; the others are 0."""
    budgets: tuple[Budget, ...]
    discount: float
    """gamma per step of the environment."""
    scale: ValueScale


class FitState(eqx.Module):
    """The critics of the behaviour and of the policy at each budget, along a leading axis."""

    critics: CriticEnsemble
    targets: CriticEnsemble
    """Moving averages of `critics`: they make the targets, and their values are the result."""
    optimiser: PyTree


class Fitted(eqx.Module):
    """The result of the fit: Q of the behaviour (number 0) and of the policy at each budget (from 1 on)."""

    targets: CriticEnsemble
    scale: ValueScale

    def values(
        self,
        number: int,
        observations: Float[Array | np.ndarray, "rows observation"],
        actions: Float[np.ndarray, "rows samples action"],
    ) -> Float[np.ndarray, "rows heads"]:
        """Q of each row, averaged over its actions, in the units of the rewards."""
        standardised = in_blocks(lambda rows, own: _mean_values(self.targets, number, rows, own), observations, actions)
        return self.scale.centre + self.scale.scale * standardised.astype(np.float64)


def fit(
    policy: Policy,
    budgets: tuple[Budget, ...],
    dataset: Dataset,
    discount: float,
    options: FitOptions,
    *,
    watch: Callable[[int, int, Fitted], None] = lambda done, made, fitted: None,
) -> Fitted:
    """Trains the critics on the transitions of `dataset`, which are in the policy's units.

    The random numbers of an update depend on the seed and the update's number only. All critics begin with the same
    weights and see the same batches, and budgets share the policy's noise, so that they differ by their policies.

    **Arguments:** `discount`, gamma per step; `watch`, which is called from time to time with the number of updates
    so far, the number since its last call, and the fit so far.

    Raises a `FloatingPointError` if the values are not finite.
    """
    scale = value_scale(Trajectories.of(dataset), discount)
    problem = Problem(policy.actor, policy.networks, jnp.asarray(varying(policy)), budgets, discount, scale)
    key = jax.random.key(options.seed)
    sizes = dataset.observations.shape[1], decision_size(policy)
    state = _initial_state(*sizes, options.hidden_sizes, options.heads, 1 + len(budgets), key)
    # `watch` sees the fit before its last fifth.
    ends = sorted({*range(CHUNK, options.updates, CHUNK), math.ceil(0.8 * options.updates), options.updates})
    for done, end in itertools.pairwise([0, *ends]):
        updates = end - done
        counts = jnp.int32(done), jnp.int32(updates), jnp.int32(options.updates)
        rates = jnp.float32(options.learning_rate), jnp.float32(options.target_rate)
        state = _run(problem, state, dataset, key, counts, rates, batch_size=options.batch_size)
        watch(end, updates, Fitted(state.targets, scale))
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.targets)):
        raise FloatingPointError("The fitted values are not finite; give a lower --fit.learning-rate.")
    return Fitted(state.targets, scale)


@partial(jax.jit, static_argnums=range(5))
def _initial_state(
    observation_size: int,
    action_size: int,
    hidden_sizes: tuple[int, ...],
    heads: int,
    policies: int,
    key: Key[Array, ""],
) -> FitState:
    critic: Any = CriticEnsemble(
        observation_size, action_size, hidden_sizes, heads=heads, sees_steps=False, key=jax.random.fold_in(key, _INIT)
    )
    critics = jax.tree.map(lambda leaf: jnp.stack([leaf] * policies), critic)
    return FitState(critics, jax.tree.map(jnp.copy, critics), jax.vmap(optimisation.init)(critics))


@partial(jax.jit, donate_argnames="state", static_argnames="batch_size")
def _run(
    problem: Problem,
    state: FitState,
    dataset: Dataset,
    key: Key[Array, ""],
    counts: tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""]],
    rates: tuple[Float[Array, ""], Float[Array, ""]],
    *,
    batch_size: int,
) -> FitState:
    """Makes updates; `counts` are the updates made before, those to make, and those of the whole fit."""
    first, updates, total = counts
    learning_rate, target_rate = rates
    window = Window(chunk=problem.actor.actions_at_once)

    def one_update(step, state):
        # One batch serves all critics.
        index_key, draw_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, _UPDATE), step))
        batch = dataset.sample(batch_size, window, problem.discount, key=index_key)
        next_actions = jnp.stack([batch.next_action, *_next_actions(problem, batch, draw_key)])
        gradients = jax.vmap(lambda critic, target, action: jax.grad(_loss)(critic, target, action, batch, problem))(
            state.critics, state.targets, next_actions
        )
        rate = learning_rate * (1 - 0.9 * step / total)
        critics, optimiser, _ = jax.vmap(
            lambda gradient, optimiser, critic: optimisation.step(gradient, optimiser, critic, learning_rate=rate)
        )(gradients, state.optimiser, state.critics)
        return FitState(critics, optimisation.moving_average(critics, state.targets, target_rate), optimiser)

    return jax.lax.fori_loop(first, first + updates, one_update, state)


def _next_actions(problem: Problem, batch: Transition, key: Key[Array, ""]) -> list[Float[Array, "batch action"]]:
    """The policy's actions in the next states, at each budget."""
    keys, size = jax.random.split(key, len(batch.reward)), batch.action.shape[-1]

    def decide(budget, observation, own):
        draws = problem.actor.draw_action(size, budget, key=own)
        return jnp.where(problem.varying, problem.actor.act(problem.networks, observation, draws, budget), 0)

    return [jax.vmap(partial(decide, budget))(batch.next_observation, keys) for budget in problem.budgets]


def _loss(
    critic: CriticEnsemble,
    target_critic: CriticEnsemble,
    next_action: Float[Array, "batch action"],
    batch: Transition,
    problem: Problem,
) -> Float[Array, ""]:
    """The squared error of the standardised values, whose targets are kept within what the rewards allow."""
    low, high = problem.scale.limits
    reward = standardised_reward(batch.reward, batch.discount, problem.scale.centre, problem.scale.scale)
    next_q = jnp.clip(target_critic(batch.next_observation, next_action), low, high)
    target = fitted_q_target(reward, batch.discount, next_q)
    return mean_over((critic(batch.observation, batch.action) - target) ** 2, batch.valid)


@jax.jit
def _mean_values(
    critics: CriticEnsemble,
    number: Int[Array, ""],
    observations: Float[Array, "rows observation"],
    actions: Float[Array, "rows samples action"],
) -> Float[Array, "rows heads"]:
    critic = jax.tree.map(lambda leaf: leaf[number], critics)
    rows, samples, _ = actions.shape
    flat = critic(jnp.repeat(observations, samples, axis=0), actions.reshape(rows * samples, -1))
    return jnp.mean(flat.reshape(rows, samples, -1), axis=1)
