"""Actors that act by one forward pass of a Gaussian network, without steps or candidates."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from sorl.agents.actors.interface import AbstractActor, structure
from sorl.agents.budget import ONE_PASS, Budget, Budgets
from sorl.networks import GaussianNetwork


class GaussianActor(AbstractActor):
    """Acts with the mean of a normal distribution, plus noise scaled by the budget's `noise_scale`."""

    hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of the network's hidden layers, in units."""
    learned_std: bool = eqx.field(static=True)
    """Whether the standard deviations are learned, rather than 1."""

    @property
    def budgets(self) -> Budgets:
        """One budget, because there are neither steps nor a critic."""
        return ONE_PASS

    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The network."""
        sizes = observation_size, action_size
        return structure(lambda key: GaussianNetwork(*sizes, self.hidden_sizes, learned_std=self.learned_std, key=key))

    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> Float[Array, " action"]:
        """The noise of one decision."""
        return jax.random.normal(key, (action_size,), jnp.float32)

    def act(
        self,
        networks: GaussianNetwork,
        observation: Float[Array, " observation"],
        draws: Float[Array, " action"],
        budget: Budget,
    ) -> Float[Array, " action"]:
        """The mean plus the budget's noise, clipped to [-1, 1]."""
        return jnp.clip(networks(observation, budget.noise_scale * draws), -1.0, 1.0)


class DeterministicActor(AbstractActor):
    """Acts with the mean of a network that ends in tanh; a budget's noise scale has no effect."""

    hidden_sizes: tuple[int, ...] = eqx.field(static=True)
    """Widths of the network's hidden layers, in units."""

    @property
    def budgets(self) -> Budgets:
        """One budget, because there are neither steps nor several candidates."""
        return ONE_PASS

    def template(self, observation_size: int, action_size: int) -> PyTree:
        """The network."""
        sizes = observation_size, action_size
        return structure(lambda key: GaussianNetwork(*sizes, self.hidden_sizes, tanh_mean=True, key=key))

    def draw_action(self, action_size: int, budget: Budget, *, key: Key[Array, ""]) -> tuple[()]:
        """Empty: the policy is deterministic."""
        return ()

    def act(
        self, networks: GaussianNetwork, observation: Float[Array, " observation"], draws: tuple[()], budget: Budget
    ) -> Float[Array, " action"]:
        """The network's mean."""
        return networks.mean(observation)
