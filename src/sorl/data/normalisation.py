"""The maps between the environment's units and the units in which networks are trained."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped


class Normalisation(eqx.Module):
    """Affine maps between the environment's units and the networks' units.

    Networks get observations with mean 0 and scale 1, and give actions in [-1, 1]. For OGBench both maps are the
    identity: its actions are in [-1, 1], and its observations are not standardised.

    The last three fields are for own logs. They are None for OGBench's data and in policies of sorl 0.1.0, whose
    actions are unchanged.
    """

    observation_mean: Float[Array, " observation"]
    observation_scale: Float[Array, " observation"]
    """Observations are divided by it, after subtraction of the mean; positive."""
    action_low: Float[Array, " action"]
    """The environment action that corresponds to -1."""
    action_high: Float[Array, " action"]
    """The environment action that corresponds to +1; equal to `action_low` for a constant action."""
    observation_mean_remainder: Float[Array, " observation"] | None = None
    """The mean in double precision minus `observation_mean`. If present, numpy observations are standardised in double
    precision, and actions are clipped to [`action_low`, `action_high`]."""
    observation_low: Float[Array, " observation"] | None = None
    """Standardised observations are clipped to at least this; None: no limits."""
    observation_high: Float[Array, " observation"] | None = None
    """Standardised observations are clipped to at most this; None: no limits."""

    def __check_init__(self):
        if (self.observation_low is None) != (self.observation_high is None):
            raise ValueError("Only one of observation_low and observation_high is given; give both or neither.")
        if self.observation_low is not None and self.observation_mean_remainder is None:
            raise ValueError("Observation limits need observation_mean_remainder; give zeros for an exact mean.")

    @classmethod
    def identity(cls, observation_size: int, action_size: int) -> "Normalisation":
        """Creates the identity maps."""
        # The dtype is explicit because JAX_ENABLE_X64 would make these float64.
        zeros, ones = jnp.zeros(observation_size, jnp.float32), jnp.ones(observation_size, jnp.float32)
        bound = jnp.ones(action_size, jnp.float32)
        return cls(zeros, ones, -bound, bound)

    @property
    def is_of_own_logs(self) -> bool:
        """Whether it has the fields of own logs."""
        return self.observation_mean_remainder is not None

    def observation(self, raw: Float[Array, "*batch observation"]) -> Float[Array, "*batch observation"]:
        """Maps observations to network units in the precision of `raw`; `standardisation` uses double precision."""
        mean, scale = (jnp.expand_dims(x, range(raw.ndim - 1)) for x in (self.observation_mean, self.observation_scale))
        centred = raw - mean
        if self.observation_mean_remainder is not None:
            centred = centred - jnp.expand_dims(self.observation_mean_remainder, range(raw.ndim - 1))
        network = centred / scale
        if self.observation_low is None or self.observation_high is None:
            return network
        low, high = (jnp.expand_dims(x, range(raw.ndim - 1)) for x in (self.observation_low, self.observation_high))
        return jnp.clip(network, low, high)

    def action(self, raw: Float[Array, "*batch action"]) -> Float[Array, "*batch action"]:
        """Maps actions from environment units to network units, [-1, 1]; a constant action becomes 0."""
        centre, half = self._action_range(raw.ndim)
        return jnp.where(half == 0, 0, (raw - centre) / jnp.where(half == 0, 1, half))

    def environment_action(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch action"]:
        """Maps actions from network units, [-1, 1], to environment units; for own logs, clipped to the action range."""
        centre, half = self._action_range(action.ndim)
        environment = centre + half * action
        if not self.is_of_own_logs:
            return environment
        # Rounding may exceed the range by one unit in the last place.
        low, high = (jnp.expand_dims(x, range(action.ndim - 1)) for x in (self.action_low, self.action_high))
        return jnp.clip(environment, low, high)

    def split(self) -> tuple["Standardisation | None", "Normalisation"]:
        """Splits the maps into a standardisation on the host and the maps that the compiled program applies.

        Only observations of own logs are standardised on the host; for other data the first is None.
        """
        return (self.standardisation(), self.without_observation_map()) if self.is_of_own_logs else (None, self)

    def without_observation_map(self) -> "Normalisation":
        """The same action map, with the identity for observations, which are in network units already."""
        zeros = jnp.zeros_like(self.observation_mean)
        return Normalisation(
            zeros,
            jnp.ones_like(self.observation_scale),
            self.action_low,
            self.action_high,
            zeros if self.is_of_own_logs else None,
        )

    def standardisation(self) -> "Standardisation":
        """The observation map for numpy arrays on the host, in double precision."""
        mean, scale = np.asarray(self.observation_mean, np.float64), np.asarray(self.observation_scale, np.float64)
        if self.observation_mean_remainder is not None:
            mean = mean + np.asarray(self.observation_mean_remainder, np.float64)
        if self.observation_low is None or self.observation_high is None:
            return Standardisation(mean, scale)
        low, high = np.asarray(self.observation_low, np.float64), np.asarray(self.observation_high, np.float64)
        return Standardisation(mean, scale, low, high)

    def _action_range(self, ndim: int):
        low, high = (jnp.expand_dims(x, range(ndim - 1)) for x in (self.action_low, self.action_high))
        return (high + low) / 2, (high - low) / 2


class Standardisation(NamedTuple):
    """Maps observations to network units, from numpy to numpy, in double precision.

    Single precision can be too coarse: near a clock value of 1.7e9 seconds its numbers are 128 seconds apart.
    """

    mean: Float[np.ndarray, " observation"]
    scale: Float[np.ndarray, " observation"]
    low: Float[np.ndarray, " observation"] | None = None
    """Limits in network units, equal for a constant observation; None: no limits."""
    high: Float[np.ndarray, " observation"] | None = None

    def __call__(self, raw: Shaped[np.ndarray, "*batch observation"]) -> Float[np.ndarray, "*batch observation"]:
        """Maps to network units and clips to the limits; the result is rounded once, to single precision."""
        network = (raw - self.mean) / self.scale
        if self.low is not None:
            np.clip(network, self.low, self.high, out=network)
        return network.astype(np.float32)

    def outside(self, raw: Shaped[np.ndarray, "*batch observation"]) -> Bool[np.ndarray, "*batch observation"]:
        """Which values the limits change by more than the rounding error of single precision."""
        if self.low is None or self.high is None:
            return np.zeros(raw.shape, np.bool_)
        network = (raw - self.mean) / self.scale
        width = np.where(self.high > self.low, self.high - self.low, np.abs(self.mean) / self.scale)
        return (network < self.low - 1e-6 * width) | (network > self.high + 1e-6 * width)

    def limits(self) -> tuple[Float[np.ndarray, " observation"], Float[np.ndarray, " observation"]]:
        """The lowest and highest observations that are not clipped, in the environment's units."""
        if self.low is None or self.high is None:
            infinite = np.full(self.mean.shape, np.inf)
            return -infinite, infinite
        return self.mean + self.scale * self.low, self.mean + self.scale * self.high
