"""State values: expectile regression of V on Q, and the weights that advantages give to cloning.

Sources: Kostrikov et al., "Offline Reinforcement Learning with Implicit Q-Learning" (2022); Nair et al., "AWAC:
Accelerating Online Reinforcement Learning with Offline Datasets" (2020).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sorl.functional.means import mean_over


LARGEST_WEIGHT = 100.0
"""Above it an advantage counts no more, so that one transition cannot rule a batch (IQL's own code)."""


def expectile_loss(
    q: Float[Array, "*batch"],
    value: Float[Array, "*batch"],
    expectile: float | Float[Array, ""],
    valid: Float[Array, "*batch"] | None = None,
) -> Float[Array, ""]:
    """|expectile - 1(q < v)| (q - v)^2, averaged over the valid rows of the batch (None: all; IQL, equation 5).

    Its minimiser is the mean of q at 0.5, where the loss is half the mean square, and nears the maximum of q at 1.
    """
    difference = q - value
    weight = jnp.where(difference < 0, 1 - expectile, expectile)
    return mean_over(weight * difference**2, valid)


def advantage_weight(
    advantage: Float[Array, "*batch"], temperature: float | Float[Array, ""]
) -> Float[Array, "*batch"]:
    """min(exp(temperature * advantage), 100), without a gradient (IQL, equation 7; AWAC, equation 8).

    `temperature` is the inverse one of the formulas: 0 clones every action alike, large takes the best alone.
    """
    # The exponent is bounded, not the weight: the exponential of a large advantage is infinite.
    exponent = jnp.minimum(temperature * advantage, jnp.log(jnp.asarray(LARGEST_WEIGHT, advantage.dtype)))
    return jax.lax.stop_gradient(jnp.exp(exponent))
