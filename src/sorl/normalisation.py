"""How a user's own units map to the units that networks are trained in."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class Normalisation(eqx.Module):
    """Affine maps between the environment's units and the networks' units.

    Networks see observations with mean 0 and scale 1, and act in [-1, 1]. For OGBench, whose actions are in [-1, 1]
    already and whose observations are used as they are, both maps are the identity.
    """

    observation_mean: Float[Array, " observation"]
    observation_scale: Float[Array, " observation"]
    """Positive; observations are divided by it."""
    action_low: Float[Array, " action"]
    """The environment action that -1 stands for."""
    action_high: Float[Array, " action"]
    """The environment action that +1 stands for."""

    @classmethod
    def identity(cls, observation_size: int, action_size: int) -> "Normalisation":
        """The maps that change nothing."""
        return cls(
            jnp.zeros(observation_size), jnp.ones(observation_size), -jnp.ones(action_size), jnp.ones(action_size)
        )

    def observation(self, raw: Float[Array, "*batch observation"]) -> Float[Array, "*batch observation"]:
        """Environment units to network units."""
        mean, scale = (jnp.expand_dims(x, range(raw.ndim - 1)) for x in (self.observation_mean, self.observation_scale))
        return (raw - mean) / scale

    def action(self, raw: Float[Array, "*batch action"]) -> Float[Array, "*batch action"]:
        """Environment units to network units, [-1, 1]."""
        centre, half = self._action_range(raw.ndim)
        return (raw - centre) / half

    def environment_action(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch action"]:
        """Network units, [-1, 1], to environment units."""
        centre, half = self._action_range(action.ndim)
        return centre + half * action

    def _action_range(self, ndim: int):
        low, high = (jnp.expand_dims(x, range(ndim - 1)) for x in (self.action_low, self.action_high))
        return (high + low) / 2, (high - low) / 2
