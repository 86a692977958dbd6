"""State values by expectile regression of V on Q, and advantage weights for behaviour cloning.

Sources: Kostrikov et al., "Offline Reinforcement Learning with Implicit Q-Learning" (2022); Nair et al., "AWAC:
Accelerating Online Reinforcement Learning with Offline Datasets" (2020).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sorl.functional.means import mean_over


LARGEST_WEIGHT = 100.0
"""The largest advantage weight, so that one transition cannot dominate a batch (as in IQL's released code)."""


def expectile_loss(
    q: Float[Array, "*batch"],
    value: Float[Array, "*batch"],
    expectile: float | Float[Array, ""],
    valid: Float[Array, "*batch"] | None = None,
) -> Float[Array, ""]:
    """|expectile - 1(q < v)| (q - v)^2, averaged over the valid rows of the batch (None: all; IQL, equation 5).

    At expectile 0.5 the loss is half the mean square and its minimiser is the mean of q; towards 1 the minimiser tends
    to the maximum of q.
    """
    difference = q - value
    weight = jnp.where(difference < 0, 1 - expectile, expectile)
    return mean_over(weight * difference**2, valid)


def advantage_weight(
    advantage: Float[Array, "*batch"], temperature: float | Float[Array, ""]
) -> Float[Array, "*batch"]:
    """min(exp(temperature * advantage), 100), without a gradient (IQL, equation 7; AWAC, equation 8).

    `temperature` is the inverse temperature of the formulas: at 0 every action has the same weight, and a large value
    favours the best actions.
    """
    # Clip the exponent, not the weight: the exponential of a large advantage is infinite.
    exponent = jnp.minimum(temperature * advantage, jnp.log(jnp.asarray(LARGEST_WEIGHT, advantage.dtype)))
    return jax.lax.stop_gradient(jnp.exp(exponent))
