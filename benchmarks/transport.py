"""Wasserstein distances between samples, and a shortcut field's errors against a flow that is known."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from mixtures import Mixture

from sorl import ShortcutField
from sorl.functional import shortcut


def spread_noise(number: int, size: int, seed: int) -> Float[np.ndarray, "number size"]:
    """Standard normal quantiles at equal distances in one dimension, a scrambled Sobol sequence in two."""
    from scipy import stats

    if size == 1:
        return stats.norm.ppf((np.arange(number) + 0.5) / number)[:, None].astype(np.float32)
    points = stats.qmc.Sobol(size, rng=seed).random_base2(math.ceil(math.log2(number)))
    return stats.norm.ppf(points[:number]).astype(np.float32)


def distance(one: Float[np.ndarray, "rows size"], other: Float[np.ndarray, "rows size"]) -> float:
    """W2 between two sets of as many points: sorted in one dimension, by the best assignment in several."""
    if one.shape[1] == 1:
        return float(np.sqrt(np.mean((np.sort(one[:, 0]) - np.sort(other[:, 0])) ** 2)))
    from scipy.optimize import linear_sum_assignment

    costs = np.sum((one[:, None].astype(np.float64) - other[None]) ** 2, axis=-1)
    return float(np.sqrt(costs[linear_sum_assignment(costs)].mean()))


def errors(law: Mixture, field: ShortcutField, path: Float[Array, "times rows size"], finest: int) -> dict[str, Any]:
    """The measured terms of the bound, at the points `path` of the exact flow: root mean squares, largest over times.

    **Returns:** `discretisation`, the flow's average velocity over a step of the finest grid minus its velocity; `fm`,
    the field at the finest step minus the velocity; `sc`, for the steps 1, 1/2, .., the field minus its average over
    two halves; `lipschitz`, the largest slope of the field at points of the path.
    """

    def velocity(x, time, level):
        return field(jnp.zeros((*x.shape[:-1], 1)), x, time, level)

    def largest(errors):  # [times, rows, size]
        return jnp.max(jnp.sqrt(jnp.mean(jnp.sum(errors**2, axis=-1), axis=-1)))

    times, level = jnp.arange(finest) / finest, jnp.float32(math.log2(finest))
    drift = jax.vmap(law.drift)(path[:-1], times)
    found = {
        "discretisation": largest(finest * (path[1:] - path[:-1]) - drift),
        "fm": largest(jax.vmap(lambda x, t: velocity(x, t, level))(path[:-1], times) - drift),
        "sc": [],
    }
    slopes = []
    for coarse in range(round(math.log2(finest)) + 1):
        every, j = finest // 2**coarse, jnp.float32(coarse)
        points, starts = path[:-1:every], times[::every]
        whole = jax.vmap(lambda x, t, j=j: velocity(x, t, j))(points, starts)
        if every > 1:
            target = jax.vmap(
                lambda x, t, j=j: shortcut.self_consistency_target(
                    field, jnp.zeros((len(x), 1)), x, jnp.full(len(x), t), jnp.full(len(x), j)
                )
            )(points, starts)
            found["sc"].append(largest(whole - target))
        slopes.append(
            jax.vmap(lambda x, t, j=j: _slope(field, x, t, j))(points[:, :: max(1, every // 2)], starts).max()
        )
    return found | {"lipschitz": jnp.max(jnp.stack(slopes))}


def _slope(field: ShortcutField, x: Float[Array, "rows size"], time: Any, level: Any) -> Float[Array, " rows"]:
    """The spectral norm of the field's derivative by the action, at each point."""
    derivative = jax.vmap(jax.jacfwd(lambda a: field(jnp.zeros(1), a, time, level)))(x)
    return jnp.linalg.norm(derivative, ord=2, axis=(-2, -1))
