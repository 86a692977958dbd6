"""Fields: networks that map noise to an action in one or several steps; of one example or of a batch."""

from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, Float, Key

from sorl.networks.mlp import MLP, joined


class ShortcutField(eqx.Module):
    """s(a^t, t, h | x): the average velocity of the action flow over [t, t + h], for any trained step size h = 1 / M.

    The inputs include the raw time and, for the step size, log2 M as a raw number.
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


class VelocityField(eqx.Module):
    """v(a^t, t | x): the velocity of the action flow at a time, which is an input as a raw number."""

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
    """mu(x, z): an action from noise in one forward pass."""

    mlp: MLP

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int], *, key: Key[Array, ""]):
        self.mlp = MLP(observation_size + action_size, action_size, hidden_sizes, layer_norm=False, key=key)

    def __call__(
        self, observation: Float[Array, "*batch observation"], noise: Float[Array, "*batch action"]
    ) -> Float[Array, "*batch action"]:
        """The action for each sample of noise, not clipped."""
        return self.mlp(joined(observation, noise))
