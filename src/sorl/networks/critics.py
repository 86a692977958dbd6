"""Critics: an ensemble of action values, and state values; of one example or of a batch."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sorl.networks.mlp import MLP, joined


class CriticEnsemble(eqx.Module):
    """Q(x, a, k): the action values, one per head, of the policy that acts with k jumps.

    k is an input of the network, as a raw number. With `sees_steps=False` it is not an input and need not be given.
    """

    heads: MLP
    """Every array has a leading axis of heads, so that all heads run as one batched matrix product."""
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

        Pass a batch directly rather than through `vmap`: the heads are then the outer axis of each batched product,
        whereas under `vmap` they are an inner axis, and each layer transposes its input.

        Raises a `ValueError` if the critic needs `steps` and gets None.
        """
        inputs = [observation, action]
        if self.sees_steps:
            if steps is None:
                raise ValueError("This critic sees the number of jumps but got none; give steps, or sees_steps=False.")
            inputs.append(steps)
        x = joined(*inputs)
        if x.ndim == 1:
            return eqx.filter_vmap(lambda head: head(x)[0])(self.heads)
        # Each head gets its own copy of the rows. With shared rows the first layer's product would have heads and units
        # as one axis, which XLA's CPU backend makes by a copy. A broadcast would not help either: its gradient is a sum
        # over an axis, for which XLA recomputes the preceding product in slow loops.
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
