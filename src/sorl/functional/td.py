"""Temporal-difference targets and losses, and the policy's Q loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sorl.functional.means import mean_over
from sorl.functional.verifiers import Aggregation, HeadsToValue, aggregate


def td_target(
    reward: Float[Array, "*batch"],
    discount: Float[Array, "*batch"],
    next_q: Float[Array, "*batch heads"],
    *,
    aggregation: Aggregation | HeadsToValue,
    stop_gradient: bool = True,
) -> Float[Array, "*batch"]:
    """The TD target y = r + d aggregate(Q(x', a')), without a gradient unless `stop_gradient=False`.

    **Arguments:** `reward` and `discount` d as in `sorl.data.transitions.Transition`: the discounted sum of the rewards
    of n steps, and gamma^n, 0 where the episode terminated within them; `next_q`, the target critic's values.
    """
    value = aggregate(next_q, aggregation)
    _refuse_other_shapes(reward=jnp.shape(reward), discount=jnp.shape(discount), next_q=jnp.shape(value))
    target = reward + discount * value
    return jax.lax.stop_gradient(target) if stop_gradient else target


def expected_max_target(
    reward: Float[Array, "*batch"],
    discount: Float[Array, "*batch"],
    next_q: Float[Array, "candidates *batch heads"],
    *,
    aggregation: Aggregation | HeadsToValue,
    stop_gradient: bool = True,
) -> Float[Array, "*batch"]:
    """The TD target of a policy that acts by best of N: y = r + d max_i aggregate(Q(x', a'_i)).

    Its mean over random candidates a'_1, .., a'_N is the expected-max operator (Ghasemipour et al., "EMaQ: Expected-Max
    Q-Learning Operator for Simple Yet Effective Offline and Online RL", 2021). Arguments as for `td_target`, with a
    leading axis of candidates in `next_q`.
    """
    value = jnp.max(aggregate(next_q, aggregation), axis=0)
    _refuse_other_shapes(reward=jnp.shape(reward), discount=jnp.shape(discount), next_q=jnp.shape(value))
    target = reward + discount * value
    return jax.lax.stop_gradient(target) if stop_gradient else target


def td_loss(
    q: Float[Array, "*batch heads"], target: Float[Array, "*batch"], valid: Float[Array, "*batch"] | None = None
) -> Float[Array, ""]:
    """(Q - y)^2, averaged over heads and over the valid rows of the batch (None: all)."""
    _refuse_other_shapes(q=jnp.shape(q)[:-1], target=jnp.shape(target))
    return mean_over((q - target[..., None]) ** 2, valid)


def policy_q_loss(
    q: Float[Array, "*batch heads"], *, normalised: bool = True, aggregation: Aggregation | HeadsToValue = "mean"
) -> Float[Array, ""]:
    """-mean Q / stopgrad(mean |Q|), Q the mean of the heads (SORL, Q loss); independent of the scale of the rewards.

    With `normalised=False` it is -mean Q, in the units of the rewards; `aggregation` replaces the mean of the heads.
    """
    q = aggregate(q, aggregation)
    loss = -jnp.mean(q)
    return loss / jax.lax.stop_gradient(jnp.mean(jnp.abs(q))) if normalised else loss


def _refuse_other_shapes(**shapes: tuple[int, ...]) -> None:
    """Raises a `ValueError` if the shapes differ, the axis of heads left out; broadcasting would hide the mistake."""
    if len({*shapes.values()}) > 1:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"Without the last axis of Q, the heads, the shapes are {found}; give one value for each row.")
