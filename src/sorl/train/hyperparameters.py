"""Hyper-parameters as arguments of compiled programs: in 32 bits, and with the settings in which members differ."""

from collections.abc import Sequence
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sorl.agents import AbstractAgent


def own_settings(agents: Sequence[AbstractAgent]) -> PyTree | None:
    """The hyper-parameters in which the agents of a population's members differ.

    **Returns:** an agent with an array [members] in each field in which they differ and None in the others; None if
    they do not differ. Raises a `ValueError` if a static field differs.
    """
    own = jax.tree.map(lambda *values: np.asarray(values, np.float32) if len(set(values)) > 1 else None, *agents)
    return own if jax.tree.leaves(own) else None


def combined(agent: AbstractAgent, own: PyTree | None) -> AbstractAgent:
    """The agent with the own settings of one member."""
    return cast(AbstractAgent, eqx.combine(own, agent))


def single_precision(agent: AbstractAgent) -> AbstractAgent:
    """Converts the agent's hyper-parameters to 32 bits, so that training is the same under JAX_ENABLE_X64.

    As Python numbers they would get JAX's default types, and values computed only from them would have 64 bits.
    """

    def narrow(value):
        floating = jnp.issubdtype(jnp.result_type(value), jnp.floating)
        return jnp.asarray(value, jnp.float32 if floating else jnp.int32)

    return jax.tree.map(narrow, agent)
