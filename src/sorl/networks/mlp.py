"""The multilayer perceptron inside every network, and the concatenation of its inputs; of one example or a batch."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sorl.networks import layers
from sorl.system.accelerators import on_accelerator


LAYER_NORM_EPSILON = 1e-6
"""Flax's default, and so the released implementation's; Equinox's is 1e-5."""


class MLP(eqx.Module):
    """A multilayer perceptron: linear layers with GELU (tanh approximation) and, optionally, layer norm after it."""

    layers: tuple[eqx.nn.Linear, ...]
    norms: tuple[eqx.nn.LayerNorm, ...]
    """One layer norm for each hidden layer, or an empty tuple."""

    def __init__(
        self,
        in_size: int,
        out_size: int,
        hidden_sizes: Sequence[int],
        *,
        layer_norm: bool,
        final_scale: float = 1.0,
        key: Key[Array, ""],
    ):
        """**Arguments:** the sizes of input, output and hidden layers; `layer_norm`, whether each hidden layer has one;
        `final_scale`, a factor on the variance of the last kernel; `key`, which initialises the kernels.

        Kernels are uniform with variance 2 / (fan in + fan out) (variance scaling, fan average); biases are zero.
        """
        sizes = [in_size, *hidden_sizes, out_size]
        scales = [1.0] * len(hidden_sizes) + [final_scale]
        keys = jax.random.split(key, len(scales))
        shapes = zip(sizes[:-1], sizes[1:], scales, keys, strict=True)
        self.layers = tuple(_linear(i, o, scale=scale, key=k) for i, o, scale, k in shapes)
        norm_sizes = hidden_sizes if layer_norm else ()
        self.norms = tuple(eqx.nn.LayerNorm(s, eps=LAYER_NORM_EPSILON, dtype=jnp.float32) for s in norm_sizes)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """Applies the network to one example, or to a batch of them."""
        if on_accelerator() and self.norms:
            return self._with_few_kernels(x)
        for index, layer in enumerate(self.layers[:-1]):
            x = layers.gelu(layers.affine(layer, x))
            if self.norms:
                x = layers.layer_norm(self.norms[index], x)
        return layers.affine(self.layers[-1], x)

    def _with_few_kernels(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """The network with layer norm on an accelerator, equal up to rounding."""
        hidden = list(zip(self.layers[:-1], self.norms, strict=True))
        # Repeat the vectors of all layers over the rows at once, so that one kernel sums all their gradients. If the
        # layers differ in width, repeat those of each layer separately.
        sizes = [layer.out_features for layer, _ in hidden]
        groups = [hidden] if len(set(sizes)) == 1 else [[pair] for pair in hidden]
        repeated = (rows for group in groups for rows in _repeated(group, x.shape[:-1]))
        for (layer, norm), (bias, scale, shift) in zip(hidden, repeated, strict=True):
            x = layers.unit_of_gelu(x @ layer.weight.T, bias, norm.eps) * scale + shift
        return layers.affine(self.layers[-1], x)


def _repeated(
    group: Sequence[tuple[eqx.nn.Linear, eqx.nn.LayerNorm]], batch: tuple[int, ...]
) -> list[tuple[Float[Array, "*batch units"], ...]]:
    """Bias, scale and shift of each layer, for each row of a batch."""
    vectors = jnp.stack(jax.tree.leaves([(layer.bias, norm.weight, norm.bias) for layer, norm in group]))
    count, units = vectors.shape
    rows = jnp.broadcast_to(vectors.reshape(count, *(1 for _ in batch), units), (count, *batch, units))
    each = [vector[0] for vector in jax.lax.split(rows, [1] * count)]
    return [tuple(each[first : first + 3]) for first in range(0, count, 3)]


def _linear(in_size: int, out_size: int, *, scale: float, key: Key[Array, ""]) -> eqx.nn.Linear:
    linear = eqx.filter_eval_shape(eqx.nn.Linear, in_size, out_size, key=key)
    initialise = jax.nn.initializers.variance_scaling(scale, "fan_avg", "uniform", in_axis=-1, out_axis=-2)
    kernel = initialise(key, (out_size, in_size), jnp.float32)
    return eqx.tree_at(lambda l: (l.weight, l.bias), linear, (kernel, jnp.zeros(out_size, jnp.float32)))


def joined(*inputs: Float[Array, "..."]) -> Float[Array, "*batch in"]:
    """Concatenates vectors and numbers, of one example or of a batch, to a network's input; the first is a vector.

    A number that is the same for the whole batch need not be repeated.
    """
    batch = inputs[0].shape[:-1]
    columns = (x if x.ndim > len(batch) else jnp.broadcast_to(x, batch)[..., None] for x in inputs)
    return jnp.concatenate(list(columns), axis=-1)
