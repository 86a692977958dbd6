"""Fitted Q evaluation: the value of a given policy, learned from transitions that another policy made.

Source: Le, Voloshin & Yue, "Batch Policy Learning under Constraints" (2019). There, each regression is solved before
its result becomes the next target; here, the target is a moving average.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sorl.functional.td import td_target


def fitted_q_target(
    reward: Float[Array, "*batch"], discount: Float[Array, "*batch"], next_q: Float[Array, "*batch heads"]
) -> Float[Array, "*batch heads"]:
    """y_h = r + d Q_h(x', a'), a' an action of the evaluated policy: each head has its own target, without a gradient.

    Heads that share no target disagree where the data do not determine the value.

    **Arguments:** `reward` and `discount` as for `td_target`; `next_q`, the target critic's values.
    """
    reward, discount = (jnp.broadcast_to(x[..., None], next_q.shape) for x in (reward, discount))
    return td_target(reward, discount, next_q[..., None], aggregation="mean")


def standardised_reward(
    reward: Float[Array, "*batch"],
    discount: Float[Array, "*batch"],
    centre: float | Float[Array, ""],
    scale: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
    """(r + (d - 1) c) / s, the reward with which a critic learns n = (Q - c) / s instead of Q, for c = `centre`.

    A critic n that is fitted to `standardised_reward` + d n(x', a') gives Q = c + s n. So a network whose outputs begin
    near 0 begins at values near `centre`, and the learning rate need not depend on the scale of the rewards.
    """
    return (reward + (discount - 1) * centre) / scale
