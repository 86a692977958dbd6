"""The gradient of a network that a loss applies several times, with one product per layer for all applications.

Automatic differentiation makes one product and one sum over rows for each layer of each application, and adds them. On
an accelerator, where small kernels cost about the same whatever their size, it is faster to differentiate with respect
to zeros that are added to the layers' outputs, and to multiply all rows at once.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sorl.networks import layers
from sorl.networks.mlp import MLP


Rows = list[list[Float[Array, "_ _"]]]
"""Arrays [rows, units], one for each application and layer."""


class Slopes(NamedTuple):
    """The gradients of layers of the same sizes, stacked: [layers, out, in] and [layers, out]."""

    weight: Float[Array, "_ _ _"]
    bias: Float[Array, "_ _"]


def grad(loss: Callable[..., tuple[Array, PyTree]]) -> Callable[..., tuple[list[Slopes], PyTree]]:
    """`jax.grad(loss, has_aux=True)` for a network that consists of an `mlp` without layer norm, such as a field.

    `loss` may use the network only by calling it, on batches with one leading axis. The gradient is that of
    `as_network`, which is best called outside of branches: a branch would copy the parts of stacked arrays.
    """

    def gradient(network: Any, *arguments: Any) -> tuple[list[Slopes], PyTree]:
        def run(zeros: Rows | None) -> tuple[Array, tuple[PyTree, Rows, Rows]]:
            noted = _Applications(network.mlp, zeros)
            value, aux = loss(eqx.tree_at(lambda n: n.mlp, network, noted), *arguments)
            return value, (aux, noted.inputs, noted.outputs)

        # The first pass finds the applications and is not compiled; the second is differentiated.
        _, (_, _, outputs) = jax.eval_shape(lambda: run(None))
        zeros = jax.tree.map(lambda output: jnp.zeros(output.shape, output.dtype), outputs)
        slopes, (aux, inputs, _) = jax.grad(run, has_aux=True)(zeros)
        return [_slopes(inputs, slopes, group) for group in _alike(network.mlp)], aux

    return gradient


def as_network(network: Any, gradient: list[Slopes]) -> Any:
    """The gradient by `grad` in the form of the network."""
    layers = list(network.mlp.layers)
    for group, slopes in zip(_alike(network.mlp), gradient, strict=True):
        for index, weight, bias in zip(group, slopes.weight, slopes.bias, strict=True):
            layers[index] = eqx.tree_at(lambda l: (l.weight, l.bias), layers[index], (weight, bias))
    return eqx.tree_at(lambda n: n.mlp.layers, network, tuple(layers))


class _Applications:
    """Takes the place of an MLP: applies it with constant parameters, and notes what enters and leaves its layers."""

    def __init__(self, mlp: MLP, zeros: Rows | None):
        assert not mlp.norms
        self.inputs: Rows = []
        self.outputs: Rows = []
        self._mlp = jax.lax.stop_gradient(mlp)
        self._zeros = zeros

    def __call__(self, x: Float[Array, "rows in"]) -> Float[Array, "rows out"]:
        added = None if self._zeros is None else self._zeros[len(self.inputs)]
        inputs, outputs = [x], []
        for index, layer in enumerate(self._mlp.layers):
            x = layers.affine(layer, inputs[-1])
            if added is not None:
                x = x + added[index]
            outputs.append(x)
            inputs.append(layers.gelu(x))
        self.inputs.append(inputs[:-1])
        self.outputs.append(outputs)
        return outputs[-1]


def _alike(mlp: MLP) -> list[list[int]]:
    """The indices of the layers of the same sizes, which share one batched product."""
    groups = defaultdict[tuple[int, ...], list[int]](list)
    for index, layer in enumerate(mlp.layers):
        groups[layer.weight.shape].append(index)
    return list(groups.values())


def _slopes(inputs: Rows, slopes: Rows, group: list[int]) -> Slopes:
    """The gradients of a group's parameters, from what entered its layers and the gradients of what left them."""
    entered, slope = (
        jnp.stack([jnp.concatenate([rows[index] for rows in noted]) for index in group]) for noted in (inputs, slopes)
    )
    # Behind a barrier, because XLA would sum the rows of each application by themselves.
    slope = jax.lax.optimization_barrier(slope)
    return Slopes(jnp.einsum("lro,lri->loi", slope, entered), jnp.sum(slope, axis=1))
