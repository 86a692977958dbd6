"""Gaussian mixtures whose straight-path flow from standard normal noise is known in closed form."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key


class Mixture(eqx.Module):
    """sum_i w_i N(mu_i, sigma_i^2 I), the law of the data; noise is N(0, I), the path a^t = (1 - t) a^0 + t a^1."""

    weights: Float[Array, " components"]
    means: Float[Array, "components size"]
    deviations: Float[Array, " components"]

    def sample(self, number: int, *, key: Key[Array, ""]) -> Float[Array, "number size"]:
        """Independent samples."""
        component_key, noise_key = jax.random.split(key)
        component = jax.random.choice(component_key, len(self.weights), (number,), p=self.weights)
        noise = jax.random.normal(noise_key, (number, self.means.shape[1]), jnp.float32)
        return self.means[component] + self.deviations[component][:, None] * noise

    def drift(self, x: Float[Array, "rows size"], time: Float[Array, ""]) -> Float[Array, "rows size"]:
        """v(x, t) = E[a^1 - a^0 | a^t = x], a mean over components by their posterior probabilities.

        Given component i, a^t is N(t mu_i, s_i^2) with s_i^2 = (1 - t)^2 + t^2 sigma_i^2, and E[a^1 - a^0 | x] = mu_i +
        (t sigma_i^2 - (1 - t)) / s_i^2 (x - t mu_i).
        """
        variance = (1 - time) ** 2 + time**2 * self.deviations**2
        away = x[:, None] - time * self.means[None]
        size = x.shape[1]
        exponent = -jnp.sum(away**2, axis=-1) / (2 * variance)[None] - (size / 2 * jnp.log(variance))[None]
        posterior = jax.nn.softmax(exponent + jnp.log(self.weights)[None], axis=1)
        slope = (time * self.deviations**2 - (1 - time)) / variance
        return jnp.sum(posterior[..., None] * (self.means[None] + slope[None, :, None] * away), axis=1)

    def flow(self, noise: Float[Array, "rows size"], steps: int, substeps: int) -> Float[Array, "times rows size"]:
        """The points at the times 0, 1 / steps, .., 1 of the flow from `noise`, by the classical Runge-Kutta method."""
        small = 1 / (steps * substeps)

        def advance(x, index):
            time = index * small
            first = self.drift(x, time)
            second = self.drift(x + small / 2 * first, time + small / 2)
            third = self.drift(x + small / 2 * second, time + small / 2)
            fourth = self.drift(x + small * third, time + small)
            return x + small / 6 * (first + 2 * second + 2 * third + fourth), x

        end, path = jax.lax.scan(advance, noise, jnp.arange(steps * substeps, dtype=noise.dtype))
        return jnp.concatenate([path[::substeps], end[None]])


MOST_COMPONENTS = 5


def mixture(weights: Any, means: Any, deviations: Any) -> Mixture:
    """A mixture, with components of weight 0 up to `MOST_COMPONENTS`, so that all laws of a size are one program."""
    means = np.asarray(means, np.float32).reshape(len(weights), -1)
    missing = MOST_COMPONENTS - len(weights)
    return Mixture(
        jnp.asarray(np.pad(np.asarray(weights, np.float32), (0, missing))),
        jnp.asarray(np.pad(means, ((0, missing), (0, 0)))),
        jnp.asarray(np.pad(np.asarray(deviations, np.float32), (0, missing), constant_values=1.0)),
    )


_RING = [[0.7 * np.cos(angle), 0.7 * np.sin(angle)] for angle in np.linspace(0, 2 * np.pi, 5, endpoint=False)]

LAWS: dict[str, Mixture] = {
    "1-D, one wide mode": mixture([1.0], [0.3], [0.5]),
    "1-D, two modes": mixture([0.5, 0.5], [-0.5, 0.5], [0.2, 0.2]),
    "1-D, three uneven modes": mixture([0.2, 0.5, 0.3], [-0.7, 0.0, 0.6], [0.1, 0.2, 0.1]),
    "2-D, two overlapping modes": mixture([0.5, 0.5], [[-0.4, -0.2], [0.4, 0.2]], [0.4, 0.4]),
    "2-D, a narrow and a wide mode": mixture([0.4, 0.6], [[-0.5, 0.3], [0.4, -0.2]], [0.15, 0.35]),
    "2-D, a ring of five modes": mixture([0.2] * 5, _RING, [0.15] * 5),
}
"""The laws of the benchmark, from smooth to narrow."""
