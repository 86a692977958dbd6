"""The gradient of a network that a loss applies several times, with one product for all applications of alike layers.

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
from sorl.system.accelerators import bound_by_kernels


Rows = list[list[Float[Array, "_ _"]]]
"""Arrays [rows, units], one for each application and layer."""


_SMALL = 2**18
"""Layers of different widths share a product, padded with zeros, if the widest one squared is at most this."""


class Application(NamedTuple):
    """What enters and leaves the layers of an MLP in one application."""

    inputs: list[Float[Array, "_ _"]]
    outputs: list[Float[Array, "_ _"]]
    """Before the activation; the last is the MLP's output."""


class Slopes(NamedTuple):
    """The gradients of layers with inputs of the same size, stacked; zeros in place of outputs that a layer lacks."""

    weight: Float[Array, "layers out in"]
    bias: Float[Array, "layers out"]


def applied(network: Any, *inputs: Float[Array, "rows _"] | Float[Array, " rows"]) -> Application:
    """Applies a network; `grad` can take the result as `first`, in place of the first application that a loss makes."""
    noted = _Applications(network.mlp)
    eqx.tree_at(lambda n: n.mlp, network, noted)(*inputs)
    return Application(noted.inputs[0], noted.outputs[0])


def grad(
    loss: Callable[..., tuple[Array, PyTree]], *, first: Application | None = None
) -> Callable[..., tuple[list[Slopes], PyTree]]:
    """`jax.grad(loss, has_aux=True)` for a network that consists of an `mlp` without layer norm, such as a field.

    `loss` may use the network only by calling it, on batches with one leading axis. The function returns `Slopes`;
    `as_network` turns them into the form of the network. Call it outside of branches, which would copy the parts of the
    stacked arrays.

    **Arguments:** `first`, the loss's first application, as `applied` returns it, so that it is not computed again. It
    must be of the same network to the same inputs, and may have more rows after them.
    """

    def gradient(network: Any, *arguments: Any) -> tuple[list[Slopes], PyTree]:
        def run(zeros: Rows | None) -> tuple[Array, tuple[PyTree, Rows, Rows]]:
            noted = _Applications(network.mlp, zeros, first)
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
            units = len(layers[index].weight)
            layers[index] = eqx.tree_at(lambda l: (l.weight, l.bias), layers[index], (weight[:units], bias[:units]))
    return eqx.tree_at(lambda n: n.mlp.layers, network, tuple(layers))


class _Applications:
    """Replaces an MLP: applies it with constant parameters, and records what enters and leaves its layers."""

    def __init__(self, mlp: MLP, zeros: Rows | None = None, first: Application | None = None):
        assert not mlp.norms
        self.inputs: Rows = []
        self.outputs: Rows = []
        self._mlp = jax.lax.stop_gradient(mlp)
        self._zeros = zeros
        self._first = first

    def __call__(self, x: Float[Array, "rows in"]) -> Float[Array, "rows out"]:
        added = None if self._zeros is None else self._zeros[len(self.inputs)]
        if self._first is not None and not self.inputs:
            assert len(x) <= len(self._first.inputs[0])
            inputs, outputs = jax.tree.map(lambda rows: rows[: len(x)], self._first)
            weights = [layer.weight for layer in self._mlp.layers]
            output = outputs[-1] if added is None else _known_output(added, outputs, weights)
        else:
            inputs, outputs = self._apply(x, added)
            output = outputs[-1]
        self.inputs.append(inputs)
        self.outputs.append(outputs)
        return output

    def _apply(self, x: Float[Array, "rows in"], added: list[Float[Array, "_ _"]] | None) -> Application:
        inputs, outputs = [], []
        for index, layer in enumerate(self._mlp.layers):
            inputs.append(x)
            output = layers.affine(layer, x)
            outputs.append(output if added is None else output + added[index])
            x = layers.gelu(outputs[-1])
        return Application(inputs, outputs)


@jax.custom_jvp
def _known_output(
    zeros: list[Float[Array, "_ _"]], outputs: list[Float[Array, "_ _"]], weights: list[Float[Array, "_ _"]]
) -> Float[Array, "rows out"]:
    """The last of an application's `outputs`, as a function of the zeros that are added to each of them.

    The outputs themselves and the `weights` are constants: derivatives with respect to them are dropped.
    """
    return outputs[-1]


@_known_output.defjvp
def _known_output_derivative(primals, tangents):
    (_, outputs, weights), (added, _, _) = primals, tangents
    tangent = added[0]
    for output, weight, own in zip(outputs[:-1], weights[1:], added[1:], strict=True):
        tangent = (tangent * layers.gelu_slope(output)) @ weight.T + own
    return outputs[-1], tangent


def _alike(mlp: MLP) -> list[list[int]]:
    """The indices of the layers that share one batched product: layers of the same sizes.

    If the program is bound by kernels and the network is small (`_SMALL`), layers with inputs of the same size share
    one: the zeros that pad the narrower layers then cost no more than a kernel.
    """
    widest = max(len(layer.weight) for layer in mlp.layers)
    padded = bound_by_kernels() and widest**2 <= _SMALL
    groups = defaultdict[Any, list[int]](list)
    for index, layer in enumerate(mlp.layers):
        groups[layer.in_features if padded else layer.weight.shape].append(index)
    return list(groups.values())


def _slopes(inputs: Rows, slopes: Rows, group: list[int]) -> Slopes:
    """The gradients of a group's parameters, from what entered its layers and the gradients of what left them."""
    entered, slope = (
        [jnp.concatenate([rows[index] for rows in noted]) for index in group] for noted in (inputs, slopes)
    )
    # Pad the outputs with zeros to the widest layer of the group.
    most = max(rows.shape[1] for rows in slope)
    entered = jnp.stack(entered)
    slope = jnp.stack([jnp.pad(rows, ((0, 0), (0, most - rows.shape[1]))) for rows in slope])
    # Behind a barrier, because XLA would sum the rows of each application by themselves.
    slope = jax.lax.optimization_barrier(slope)
    return Slopes(jnp.einsum("lro,lri->loi", slope, entered), jnp.sum(slope, axis=1))
