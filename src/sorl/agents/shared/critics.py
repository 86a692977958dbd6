"""The critic of an actor-critic, as its algorithms create it."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from sorl.networks import CriticEnsemble


@runtime_checkable
class CriticSizes(Protocol):
    """The hyper-parameters that set a critic's size."""

    @property
    def critic_hidden_sizes(self) -> tuple[int, ...]:
        """Widths of each head's hidden layers, in units."""
        ...

    @property
    def critic_heads(self) -> int:
        """Number of heads."""
        ...


def critic_and_average(
    sizes: CriticSizes, observation_size: int, action_size: int, *, key: Key[Array, ""]
) -> tuple[CriticEnsemble, CriticEnsemble]:
    """A fresh critic Q(x, a), and its moving average, which starts as a copy of it.

    A copy, because donating a state that holds one buffer twice is an error.
    """
    critic = CriticEnsemble(
        observation_size, action_size, sizes.critic_hidden_sizes, heads=sizes.critic_heads, sees_steps=False, key=key
    )
    return critic, jax.tree.map(jnp.copy, critic)
