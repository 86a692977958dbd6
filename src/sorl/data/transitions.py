"""Transitions and the device-resident dataset they are drawn from."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


class Transition(eqx.Module):
    """One environment transition, or any batch of them (leading axes)."""

    observation: Float[Array, "*batch observation"]
    action: Float[Array, "*batch action"]
    reward: Float[Array, "*batch"]
    mask: Float[Array, "*batch"]
    """0 where the episode terminated at this transition (no bootstrap), else 1."""
    next_observation: Float[Array, "*batch observation"]
    next_action: Float[Array, "*batch action"]
    """The logged action at `next_observation`; at a trajectory's end, what the data hold there."""


class Dataset(eqx.Module):
    """Logged trajectories, stored once: the successor of row `i` is row `i + 1`.

    The last row of a trajectory has no successor; `starts` lists the rows that have one, and only those are drawn.
    """

    observations: Float[Array, "rows observation"]
    actions: Float[Array, "rows action"]
    """In [-1, 1]."""
    rewards: Float[Array, " rows"]
    masks: Float[Array, " rows"]
    starts: Int[Array, " transitions"]

    def __len__(self) -> int:
        """Number of transitions (not of rows)."""
        return self.starts.shape[0]

    def sample(self, batch_size: int, *, key: Key[Array, ""]) -> Transition:
        """Draws transitions uniformly, with replacement.

        **Arguments:** `batch_size`, the number of transitions; `key`, the random key of the draw.

        **Returns:** a `Transition` with one leading axis of length `batch_size`.
        """
        return self.take(jax.random.randint(key, (batch_size,), 0, len(self), jnp.int32))

    def take(self, indices: Int[Array, "*batch"]) -> Transition:
        """Gathers transitions by their number.

        **Arguments:** `indices` in `[0, len(self))`, any shape.

        **Returns:** a `Transition` whose leading axes are those of `indices`.
        """
        rows = self.starts[indices]
        return Transition(
            observation=self.observations[rows],
            action=self.actions[rows],
            reward=self.rewards[rows],
            mask=self.masks[rows],
            next_observation=self.observations[rows + 1],
            next_action=self.actions[rows + 1],
        )
