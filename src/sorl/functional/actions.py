"""Scores of actions: their distribution against one observed action, and the smoothness of a sequence."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def energy_score(samples: Float[Array, "samples size"], observed: Float[Array, " size"]) -> Float[Array, ""]:
    """mean |a_i - a| - 1/2 mean over pairs i != j of |a_i - a_j|: how well samples predict what was observed.

    Lower is better: its expectation is least for samples of the distribution that the observation comes from. The mean
    over pairs is unbiased for any number of samples; with a single sample there are no pairs, and it is left out.
    Source: Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation" (2007), section 4.3.
    """
    count = len(samples)
    to_observed = jnp.mean(_length(samples - observed[None]))
    if count == 1:
        return to_observed
    between = _length(samples[:, None] - samples[None])
    return to_observed - jnp.sum(between) / (2 * count * (count - 1))


def third_differences(actions: Float[np.ndarray, "steps action"]) -> Float[np.ndarray, "differences action"]:
    """a_(t+3) - 3 a_(t+2) + 3 a_(t+1) - a_t: the jerk of a sequence of positions, in units per step^3.

    Constant, linear and quadratic sequences have none. Fewer than four steps have no difference: the result is empty.
    """
    return np.diff(actions, n=3, axis=0)


def _length(difference: Float[Array, "*batch size"]) -> Float[Array, "*batch"]:
    return jnp.sqrt(jnp.sum(difference**2, axis=-1))
