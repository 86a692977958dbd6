"""The networks: fields and actors as policies, state values and critics; of one example or of a batch."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sorl import layers


LAYER_NORM_EPSILON = 1e-6


class MLP(eqx.Module):
    """A perceptron of several layers: linear, GELU (tanh approximation) and, if asked for, layer norm after it."""

    layers: tuple[eqx.nn.Linear, ...]
    norms: tuple[eqx.nn.LayerNorm, ...]
    """One for each hidden layer, or none."""

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
        """**Arguments:** sizes of input, output and hidden layers; `key` initialises the kernels.

        Kernels are uniform with variance 2 / (fan in + fan out) (variance scaling, fan average); biases are zero. The
        last kernel's variance is `final_scale` times that.
        """
        sizes = [in_size, *hidden_sizes, out_size]
        scales = [1.0] * len(hidden_sizes) + [final_scale]
        keys = jax.random.split(key, len(scales))
        shapes = zip(sizes[:-1], sizes[1:], scales, keys, strict=True)
        self.layers = tuple(_linear(i, o, scale=scale, key=k) for i, o, scale, k in shapes)
        norm_sizes = hidden_sizes if layer_norm else ()
        self.norms = tuple(eqx.nn.LayerNorm(s, eps=LAYER_NORM_EPSILON, dtype=jnp.float32) for s in norm_sizes)

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """One example, or a batch of them along one axis."""
        for index, layer in enumerate(self.layers[:-1]):
            x = layers.gelu(layers.affine(layer, x))
            if self.norms:
                x = layers.layer_norm(self.norms[index], x)
        return layers.affine(self.layers[-1], x)


def _linear(in_size: int, out_size: int, *, scale: float, key: Key[Array, ""]) -> eqx.nn.Linear:
    linear = eqx.filter_eval_shape(eqx.nn.Linear, in_size, out_size, key=key)
    initialise = jax.nn.initializers.variance_scaling(scale, "fan_avg", "uniform", in_axis=-1, out_axis=-2)
    kernel = initialise(key, (out_size, in_size), jnp.float32)
    return eqx.tree_at(lambda l: (l.weight, l.bias), linear, (kernel, jnp.zeros(out_size, jnp.float32)))


def joined(*inputs: Float[Array, "..."]) -> Float[Array, "*batch in"]:
    """A network's input: vectors and numbers of one example, or of a batch, side by side; the first is a vector.

    A number that is the same for the whole batch need not be repeated.
    """
    batch = inputs[0].shape[:-1]
    columns = (x if x.ndim > len(batch) else jnp.broadcast_to(x, batch)[..., None] for x in inputs)
    return jnp.concatenate(list(columns), axis=-1)


class ShortcutField(eqx.Module):
    """s(a^t, t, h | x): the average velocity of the action flow over [t, t + h], for any trained step size h = 1 / M.

    The step size enters as log2 M, a raw number beside the raw time.
    """

    mlp: MLP

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int], *, key: Key[Array, ""]):
        self.mlp = MLP(observation_size + action_size + 2, action_size, hidden_sizes, layer_norm=False, key=key)

    def __call__(
        self,
        observation: Float[Array, "*batch observation"],
        action: Float[Array, "*batch action"],
        time: Float[Array, "*#batch"],
        log2_steps: Float[Array, "*#batch"],
    ) -> Float[Array, "*batch action"]:
        """The average velocity from the partly denoised `action` at `time` in [0, 1] over a step of 2^-log2_steps."""
        return self.mlp(joined(observation, action, time, log2_steps))


class CriticEnsemble(eqx.Module):
    """Q(x, a, k): action values, one for each head, of the policy that acts with k jumps.

    k enters as a raw number; with `sees_steps=False` it does not enter, need not be given, and one value serves every
    policy.
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
        observation: Float[Array, "*batch observation"],
        action: Float[Array, "*batch action"],
        steps: Float[Array, "*#batch"] | None = None,
    ) -> Float[Array, "*batch heads"]:
        """One value per head for each observation and action.

        Over a batch, the heads are the outer axis, as a batched product wants them; a vmapped call has them inside, and
        each layer turns its input. Raises a `ValueError` if it needs `steps` and has none.
        """
        inputs = [observation, action]
        if self.sees_steps:
            if steps is None:
                raise ValueError("This critic sees the number of jumps but got none; give steps, or sees_steps=False.")
            inputs.append(steps)
        x = joined(*inputs)
        if x.ndim == 1:
            return eqx.filter_vmap(lambda head: head(x)[0])(self.heads)
        # Each head has its own copy of the rows. If they shared one, the product in the first layer and its gradient
        # would have heads and units as one axis, and XLA's CPU backend copies what it has apart; nor a broadcast, whose
        # gradient is a sum over an axis, with which XLA computes the product before it again, by slow loops.
        copies = jnp.stack([x] * len(self.heads.layers[0].weight))
        return eqx.filter_vmap(lambda head, rows: head(rows)[..., 0], out_axes=-1)(self.heads, copies)


class Value(eqx.Module):
    """V(x): the value of a state."""

    mlp: MLP

    def __init__(self, observation_size: int, hidden_sizes: Sequence[int], *, key: Key[Array, ""]):
        self.mlp = MLP(observation_size, 1, hidden_sizes, layer_norm=True, key=key)

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        """One value for each observation."""
        return self.mlp(observation)[..., 0]


class VelocityField(eqx.Module):
    """v(a^t, t | x): the velocity of the action flow at a time, without a step size; the time enters as it is."""

    mlp: MLP

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int], *, key: Key[Array, ""]):
        self.mlp = MLP(observation_size + action_size + 1, action_size, hidden_sizes, layer_norm=False, key=key)

    def __call__(
        self,
        observation: Float[Array, "*batch observation"],
        action: Float[Array, "*batch action"],
        time: Float[Array, "*#batch"],
    ) -> Float[Array, "*batch action"]:
        """The velocity at the partly denoised `action` at `time` in [0, 1]."""
        return self.mlp(joined(observation, action, time))


class OneStepField(eqx.Module):
    """mu(x, z): an action from noise by one forward pass."""

    mlp: MLP

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int], *, key: Key[Array, ""]):
        self.mlp = MLP(observation_size + action_size, action_size, hidden_sizes, layer_norm=False, key=key)

    def __call__(
        self, observation: Float[Array, "*batch observation"], noise: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch action"]:
        """The action of one noise, not clipped."""
        return self.mlp(joined(observation, noise))


class GaussianActor(eqx.Module):
    """A normal distribution over actions: the mean is a function of the state, the deviations are not.

    With `tanh_mean` the mean lies in (-1, 1) (IQL's own code, TD3); with `learned_std` the deviations are learned, else
    they are 1 (as in the comparison of the FQL paper). The last kernel starts at a hundredth of the usual variance, so
    that the first means are near 0.
    """

    mlp: MLP
    log_std: Float[Array, "*seeds action"] | None
    """Logarithms of the standard deviations; None: all are 1."""
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
        """The action of one noise drawn from N(0, I), not clipped; noise of 0 gives the mean."""
        deviation = 1.0 if self.log_std is None else jnp.exp(self.log_std)
        return self.mean(observation) + deviation * noise

    def log_probability(
        self, observation: Float[Array, " observation"], action: Float[Array, " action"]
    ) -> Float[Array, ""]:
        """The logarithm of the density at `action`, summed over action dimensions."""
        log_std = jnp.zeros_like(action) if self.log_std is None else self.log_std
        return jnp.sum(jax.scipy.stats.norm.logpdf(action, self.mean(observation), jnp.exp(log_std)))
