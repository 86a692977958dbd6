"""The Gaussian network: a normal distribution over actions."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sorl.networks.mlp import MLP


class GaussianNetwork(eqx.Module):
    """A normal distribution over actions whose mean depends on the state and whose standard deviations do not.

    With `tanh_mean` the mean lies in (-1, 1) (as in IQL's released code and TD3). With `learned_std` the standard
    deviations are learned, otherwise they are 1 (as in the comparison of the FQL paper). The last layer's kernel is
    initialised with a hundredth of the usual variance, so that the initial means are near 0.
    """

    mlp: MLP
    log_std: Float[Array, "*seeds action"] | None
    """Logarithms of the standard deviations; if None, all are 1."""
    tanh_mean: bool = eqx.field(static=True)

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        *,
        learned_std: bool = False,
        tanh_mean: bool = False,
        key: Key[Array, ""],
    ):
        self.mlp = MLP(observation_size, action_size, hidden_sizes, layer_norm=False, final_scale=0.01, key=key)
        self.log_std = jnp.zeros(action_size, jnp.float32) if learned_std else None
        self.tanh_mean = tanh_mean

    def mean(self, observation: Float[Array, " observation"]) -> Float[Array, " action"]:
        """The most likely action."""
        mean = self.mlp(observation)
        return jnp.tanh(mean) if self.tanh_mean else mean

    def __call__(
        self, observation: Float[Array, " observation"], noise: Float[Array, " action"]
    ) -> Float[Array, " action"]:
        """The action for one sample of noise from N(0, I), not clipped; noise of 0 gives the mean."""
        deviation = 1.0 if self.log_std is None else jnp.exp(self.log_std)
        return self.mean(observation) + deviation * noise

    def log_probability(
        self, observation: Float[Array, " observation"], action: Float[Array, " action"]
    ) -> Float[Array, ""]:
        """The logarithm of the density at `action`, summed over action dimensions."""
        log_std = jnp.zeros_like(action) if self.log_std is None else self.log_std
        return jnp.sum(jax.scipy.stats.norm.logpdf(action, self.mean(observation), jnp.exp(log_std)))
