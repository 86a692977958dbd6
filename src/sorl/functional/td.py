"""Temporal-difference targets and losses, and the policy's Q loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sorl.functional.means import mean_over
from sorl.functional.verifiers import Aggregation, aggregate


def td_target(
    reward: Float[Array, "*batch"],
    discount: Float[Array, "*batch"],
    next_q: Float[Array, "*batch heads"],
    *,
    aggregation: Aggregation,
    stop_gradient: bool = True,
) -> Float[Array, "*batch"]:
    """The TD target y = r + d aggregate(Q(x', a')), without a gradient unless `stop_gradient=False`.

    **Arguments:** `reward` and `discount` d as in `sorl.data.transitions.Transition`: the discounted sum of the rewards
    of n steps, and gamma^n, 0 where the episode terminated within them; `next_q`, the target critic's values.
    """
    target = reward + discount * aggregate(next_q, aggregation)
    return jax.lax.stop_gradient(target) if stop_gradient else target


def td_loss(
    q: Float[Array, "*batch heads"], target: Float[Array, "*batch"], valid: Float[Array, "*batch"] | None = None
) -> Float[Array, ""]:
    """(Q - y)^2, averaged over heads and over the valid rows of the batch (None: all)."""
    return mean_over((q - target[..., None]) ** 2, valid)


def policy_q_loss(q: Float[Array, "*batch heads"], *, normalised: bool = True) -> Float[Array, ""]:
    """-mean Q / stopgrad(mean |Q|), Q the mean of the heads (SORL, Q loss); independent of the scale of the rewards.

    With `normalised=False` it is -mean Q, in the units of the rewards.
    """
    q = jnp.mean(q, axis=-1)
    loss = -jnp.mean(q)
    return loss / jax.lax.stop_gradient(jnp.mean(jnp.abs(q))) if normalised else loss
