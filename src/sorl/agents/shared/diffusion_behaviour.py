"""The training that `Idql` and `Srpo` share: a diffusion model of the logged actions and, less often, IQL's values."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents.shared import implicit_values as implicit
from sorl.agents.shared.schedules import every
from sorl.data.transitions import Transition
from sorl.functional import diffusion, optimisation
from sorl.networks import NoisePredictor


Metrics = dict[str, Float[Array, ""]]


class BehaviourDraws(eqx.Module):
    """The random draws of one update that belong to one seed."""

    noise: Float[Array, "*seeds batch action"]
    """Standard normal noise, the model's target."""
    time: Float[Array, "*seeds batch"]
    """In [0, 1)."""
    kept: Float[Array, "*seeds batch blocks width"] | None
    """Dropout's factors on the blocks' inputs, 0 or 1 / (1 - rate); None without dropout."""


def draw(
    batch_size: int, action_size: int, blocks: int, width: int, dropout_rate: float, *, key: Key[Array, ""]
) -> BehaviourDraws:
    """Noise, times and dropout of one update."""
    noise_key, time_key, kept_key = jax.random.split(key, 3)
    kept = None
    if dropout_rate:
        keep = 1 - dropout_rate
        kept = jax.random.bernoulli(kept_key, jnp.float32(keep), (batch_size, blocks, width)).astype(jnp.float32) / keep
    return BehaviourDraws(
        noise=jax.random.normal(noise_key, (batch_size, action_size), jnp.float32),
        time=jax.random.uniform(time_key, (batch_size,), jnp.float32),
        kept=kept,
    )


def loss(
    model: NoisePredictor, batch: Transition, draws: BehaviourDraws, time: Float[Array, " batch"], beta_max: Any
) -> tuple[Float[Array, ""], Metrics]:
    """The noise-prediction loss on a batch at the given times, with the dropout of `draws`."""

    def one(observation, action, noise, time, kept):
        def predict(observation, noisy, time):
            return model(observation, noisy, time, kept)

        return diffusion.noise_prediction_loss(predict, observation, action, noise, time, beta_max)

    value = jnp.mean(jax.vmap(one)(batch.observation, batch.action, draws.noise, time, draws.kept))
    return value, {"noise_prediction_loss": value}


def step(
    model: NoisePredictor,
    optimiser: PyTree,
    batch: Transition,
    draws: BehaviourDraws,
    time: Float[Array, " batch"],
    *,
    beta_max: Any,
    learning_rate: Any,
) -> tuple[NoisePredictor, PyTree, Metrics]:
    """One step of the model and of its optimiser."""
    gradient, metrics = jax.grad(loss, has_aux=True)(model, batch, draws, time, beta_max)
    model, optimiser, metrics["behaviour_grad_norm"] = optimisation.step(
        gradient, optimiser, model, learning_rate=learning_rate
    )
    return model, optimiser, metrics


def without_dropout(draws: BehaviourDraws) -> BehaviourDraws:
    """The same noise and times, without dropout."""
    return BehaviourDraws(draws.noise, draws.time, None)


def values_in_turn(
    agent: Any, values: implicit.ImplicitValues, last: Metrics, batch: Transition, step: Int[Array, ""]
) -> tuple[implicit.ImplicitValues, Metrics]:
    """One step of V and Q in every `agent.value_interval`-th update; otherwise values and metrics are unchanged."""

    def learn(_):
        return implicit.step(
            values,
            batch,
            implicit.target_q(values, batch, agent.q_aggregation),
            expectile=agent.expectile,
            learning_rate=agent.learning_rate,
            target_rate=agent.target_rate,
        )

    return every(agent.value_interval, step, learn, (values, {name: last[name] for name in implicit.METRICS}))
