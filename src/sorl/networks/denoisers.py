"""The networks of diffusion and consistency policies; they take one example, and the caller uses `vmap`."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sorl.networks import layers
from sorl.networks.mlp import LAYER_NORM_EPSILON, MLP


FREQUENCIES = 32
"""Number of learned frequencies of the time, each with a cosine and a sine."""
_TIME_SIZE = 128


class ResidualBlock(eqx.Module):
    """x + W2 gelu(W1 layer_norm(x)), with a hidden layer four times as wide as x."""

    norm: eqx.nn.LayerNorm
    mlp: MLP

    def __init__(self, width: int, *, key: Key[Array, ""]):
        self.norm = eqx.nn.LayerNorm(width, eps=LAYER_NORM_EPSILON, dtype=jnp.float32)
        self.mlp = MLP(width, width, (4 * width,), layer_norm=False, key=key)

    def __call__(self, x: Float[Array, " width"], kept: Float[Array, " width"] | None = None) -> Float[Array, " width"]:
        """Applies the block to one example; `kept` multiplies the input of the residual branch only (dropout)."""
        return x + self.mlp(self.norm(x if kept is None else kept * x))


class NoisePredictor(eqx.Module):
    """The noise in a noisy action: a residual network on the action, the observation and features of the time.

    Source: Hansen-Estruch et al., "IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies" (2023).
    """

    frequencies: Float[Array, "*seeds frequencies"]
    """Cycles per unit of time; learned."""
    time_mlp: MLP
    first: MLP
    blocks: tuple[ResidualBlock, ...]
    last: MLP

    def __init__(self, observation_size: int, action_size: int, width: int, blocks: int, *, key: Key[Array, ""]):
        """**Arguments:** `width` of the residual stream, in units; `blocks`, the number of residual blocks."""
        frequency_key, time_key, first_key, last_key, *block_keys = jax.random.split(key, 4 + blocks)
        self.frequencies = jax.random.normal(frequency_key, (FREQUENCIES,), jnp.float32)
        self.time_mlp = MLP(2 * FREQUENCIES, _TIME_SIZE, (_TIME_SIZE,), layer_norm=False, key=time_key)
        self.first = MLP(observation_size + action_size + _TIME_SIZE, width, (), layer_norm=False, key=first_key)
        self.blocks = tuple(ResidualBlock(width, key=block_key) for block_key in block_keys)
        self.last = MLP(width, action_size, (), layer_norm=False, key=last_key)

    def __call__(
        self,
        observation: Float[Array, " observation"],
        action: Float[Array, " action"],
        time: Float[Array, ""],
        kept: Float[Array, "blocks width"] | None = None,
    ) -> Float[Array, " action"]:
        """The noise in `action`, which has the noise level of `time` in [0, 1].

        `kept` multiplies each block's input: 0 drops a unit, 1 / (1 - rate) keeps it. Without it there is no dropout.
        """
        angles = 2 * jnp.pi * time * self.frequencies
        features = self.time_mlp(jnp.concatenate([jnp.cos(angles), jnp.sin(angles)]))
        x = self.first(jnp.concatenate([action, observation, features]))
        for index, block in enumerate(self.blocks):
            x = block(x, None if kept is None else kept[index])
        return self.last(layers.gelu(x))


class ConsistencyNetwork(eqx.Module):
    """F(x, a, c): the network inside the consistency function c_skip a + c_out F, before the factor c_out."""

    mlp: MLP

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int], *, key: Key[Array, ""]):
        self.mlp = MLP(observation_size + action_size + 1, action_size, hidden_sizes, layer_norm=False, key=key)

    def __call__(
        self, observation: Float[Array, " observation"], action: Float[Array, " action"], level: Float[Array, ""]
    ) -> Float[Array, " action"]:
        """The output for a noisy `action` of unit variance at the noise `level`, which is an input as a raw number."""
        return self.mlp(jnp.concatenate([observation, action, level[None]]))
