"""The layers of all networks, with faster derivatives than XLA's own; of one example or of a batch."""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


_GELU_SLOPE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def affine(layer: eqx.nn.Linear, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
    """W x + b of a layer with a bias."""
    # Not `layer(x)`, which is W x: over a batch its product is transposed, and XLA's CPU backend copies it back (which
    # makes a whole update take 1.3 times as long).
    assert layer.bias is not None
    product = x @ layer.weight.T
    return product + jnp.broadcast_to(layer.bias, product.shape)


@jax.custom_jvp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 (Hendrycks & Gimpel 2016, the tanh approximation)."""
    return jax.nn.gelu(x, approximate=True)


@gelu.defjvp
def _gelu_derivative(primals, tangents):
    (x,), (tangent,) = primals, tangents
    # From x alone, behind a barrier, so that XLA does not reuse the forward pass's tanh and keep it for the gradient: a
    # second tanh is cheaper than an array that is written in one pass over memory and read in another.
    slope = gelu_slope(jax.lax.optimization_barrier(x))
    return gelu(x), tangent * slope


def gelu_slope(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The derivative of `gelu`."""
    square = x * x
    tanh = jnp.tanh(_GELU_SLOPE * (x + _GELU_CUBIC * (x * square)))
    inner = _GELU_SLOPE * (1 + 3 * _GELU_CUBIC * square)
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * inner


def layer_norm(norm: eqx.nn.LayerNorm, x: Float[Array, "*batch in"]) -> Float[Array, "*batch in"]:
    """Each example with mean 0 and variance 1 over its units, scaled and shifted by a norm that has weight and bias."""
    # Not `norm(x)`, which centres before it squares: one more array to write, and one more sum in the gradient. Flax,
    # and so the released implementation, has this form too.
    assert norm.weight is not None and norm.bias is not None
    return _layer_norm(x, norm.weight, norm.bias, norm.eps)


def unit(x: Float[Array, "*batch in"], epsilon: float) -> Float[Array, "*batch in"]:
    """Each example with mean 0 and variance 1 over its units; XLA's GPU backend compiles this form to one kernel."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def unit_of_gelu(
    product: Float[Array, "*batch in"], bias: Float[Array, "*batch in"], epsilon: float
) -> Float[Array, "*batch in"]:
    """`unit(gelu(product + bias), epsilon)`; its derivative keeps only the product."""
    return unit(gelu(product + bias), epsilon)


@unit_of_gelu.defjvp
def _unit_of_gelu_derivative(epsilon, primals, tangents):
    product, bias = primals
    # Behind a barrier, from the product, which is in memory in any case: the rest is computed again.
    x = jax.lax.optimization_barrier(product) + bias
    activation = jax.nn.gelu(x, approximate=True)
    tangent = (tangents[0] + tangents[1]) * gelu_slope(x)
    _, tangent = jax.jvp(lambda a: unit(a, epsilon), (activation,), (tangent,))
    return unit_of_gelu(product, bias, epsilon), tangent


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _layer_norm(
    x: Float[Array, "*batch in"], weight: Float[Array, " in"], bias: Float[Array, " in"], epsilon: float
) -> Float[Array, "*batch in"]:
    mean, scale = _moments(x, epsilon)
    unit = (x - mean) * scale
    return unit * jnp.broadcast_to(weight, x.shape) + jnp.broadcast_to(bias, x.shape)


def _moments(x: Float[Array, "*batch in"], epsilon: float) -> tuple[Float[Array, "*batch 1"], Float[Array, "*batch 1"]]:
    """The mean over units, and 1 / (standard deviation)."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.mean(x * x, axis=-1, keepdims=True) - mean * mean, 0.0)
    return mean, jax.lax.rsqrt(variance + epsilon)


@_layer_norm.defjvp
def _layer_norm_derivative(epsilon, primals, tangents):
    (x, weight, _), (x_tangent, weight_tangent, bias_tangent) = primals, tangents
    mean, scale = _moments(x, epsilon)
    size, means, scales = x.shape[-1], mean[..., 0], scale[..., 0]
    # Written by hand for the gradient, which JAX makes by transposing this derivative: it then needs only the input of
    # the forward pass, and its sums over an axis are products with a vector (the transposes of outer products). JAX's
    # own derivative keeps x - mean and the normalised x too, and reads them in several sums.
    scaled = scale * x_tangent
    along_unit = scales * scales * jnp.sum(-(x - mean) * scaled, axis=-1)
    # Through x itself, through the variance, and through the mean.
    through_variance = x * _outer(along_unit / size, weight)
    through_mean = _outer((jnp.sum(-scaled, axis=-1) - means * along_unit) / size, weight)
    tangent = scaled * jnp.broadcast_to(weight, x.shape) + through_mean + through_variance
    # Through scale and shift.
    tangent += x * _outer(scales, weight_tangent) - _outer(scales * means, weight_tangent)
    return _layer_norm(x, *primals[1:], epsilon), tangent + jnp.broadcast_to(bias_tangent, x.shape)


def _outer(rows: Float[Array, "*batch"], units: Float[Array, " in"]) -> Float[Array, "*batch in"]:
    return jnp.tensordot(rows, units, 0)
