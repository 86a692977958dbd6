"""Critics: values of actions, by an ensemble of heads, and values of states; of one example or of a batch."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from sorl.networks.mlp import MLP, joined


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
