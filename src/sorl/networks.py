"""The networks: a shortcut field as the policy, and an ensemble of critics; single example in, the caller vmaps."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


LAYER_NORM_EPSILON = 1e-6


class MLP(eqx.Module):
    """A perceptron of several layers: linear, GELU (tanh approximation) and, if asked for, layer norm after it."""

    layers: tuple[eqx.nn.Linear, ...]
    norms: tuple[eqx.nn.LayerNorm, ...]
    """One for each hidden layer, or none."""

    def __init__(
        self, in_size: int, out_size: int, hidden_sizes: Sequence[int], *, layer_norm: bool, key: Key[Array, ""]
    ):
        """**Arguments:** sizes of input, output and hidden layers; `key` initialises the kernels.

        Kernels are uniform with variance 2 / (fan in + fan out) (variance scaling, fan average); biases are zero.
        """
        sizes = [in_size, *hidden_sizes, out_size]
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(_linear(i, o, key=k) for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True))
        self.norms = tuple(eqx.nn.LayerNorm(s, eps=LAYER_NORM_EPSILON) for s in hidden_sizes) if layer_norm else ()

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        """One example, without a batch axis."""
        for index, layer in enumerate(self.layers[:-1]):
            x = jax.nn.gelu(_affine(layer, x), approximate=True)
            if self.norms:
                x = self.norms[index](x)
        return _affine(self.layers[-1], x)


def _affine(layer: eqx.nn.Linear, x: Float[Array, " in"]) -> Float[Array, " out"]:
    # Not `layer(x)`, which is W x: over a batch the product would come out transposed, and XLA's CPU backend copies it
    # back (a whole update then takes 1.3 times as long).
    assert layer.bias is not None
    return x @ layer.weight.T + layer.bias


def _linear(in_size: int, out_size: int, *, key: Key[Array, ""]) -> eqx.nn.Linear:
    linear = eqx.filter_eval_shape(eqx.nn.Linear, in_size, out_size, key=key)
    kernel = jax.nn.initializers.glorot_uniform(in_axis=-1, out_axis=-2)(key, (out_size, in_size))
    return eqx.tree_at(lambda l: (l.weight, l.bias), linear, (kernel, jnp.zeros(out_size)))


class ShortcutField(eqx.Module):
    """s(a^t, t, h | x): the average velocity of the action flow over [t, t + h], for any trained step size h = 1 / M.

    The step size enters as log2 M, a raw number beside the raw time.
    """

    mlp: MLP

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int], *, key: Key[Array, ""]):
        self.mlp = MLP(observation_size + action_size + 2, action_size, hidden_sizes, layer_norm=False, key=key)

    def __call__(
        self,
        observation: Float[Array, " observation"],
        action: Float[Array, " action"],
        time: Float[Array, ""],
        log2_steps: Float[Array, ""],
    ) -> Float[Array, " action"]:
        """The average velocity from the partly denoised `action` at `time` in [0, 1] over a step of 2^-log2_steps."""
        return self.mlp(jnp.concatenate([observation, action, time[None], log2_steps[None]]))


class CriticEnsemble(eqx.Module):
    """Q(x, a, k): action values, one for each head, of the policy that acts with k jumps.

    k enters as a raw number; with `sees_steps=False` it does not enter, and one value serves every budget.
    """

    heads: MLP
    """Every array has a leading head axis, so that the heads run as one batched matrix product."""
    sees_steps: bool = eqx.field(static=True)

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        *,
        heads: int = 2,
        sees_steps: bool = True,
        key: Key[Array, ""],
    ):
        in_size = observation_size + action_size + int(sees_steps)
        make = eqx.filter_vmap(lambda k: MLP(in_size, 1, hidden_sizes, layer_norm=True, key=k))
        self.heads = make(jax.random.split(key, heads))
        self.sees_steps = sees_steps

    def __call__(
        self,
        observation: Float[Array, " observation"],
        action: Float[Array, " action"],
        steps: Float[Array, ""],
    ) -> Float[Array, " heads"]:
        """One value per head for one observation and action."""
        x = jnp.concatenate([observation, action, *([steps[None]] if self.sees_steps else [])])
        return eqx.filter_vmap(lambda head: head(x)[0])(self.heads)
