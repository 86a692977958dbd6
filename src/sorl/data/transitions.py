"""Transitions, the windows of a trajectory that they span, and the dataset on the device that they are drawn from."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class Window:
    """What an agent needs of a trajectory: how many rewards before it bootstraps, and how many actions at once."""

    n_step: int = 1
    """Rewards that are summed before the bootstrap, unless the chunk is longer (n-step returns)."""
    chunk: int = 1
    """Actions that the policy gives at once (h of Li et al. 2025, "Reinforcement Learning with Action Chunking")."""

    def __post_init__(self):
        for name in ("n_step", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a whole number >= 1.")

    @property
    def steps(self) -> int:
        """Environment steps from `observation` to `next_observation`: no return ends before the chunk's last action."""
        return max(self.n_step, self.chunk)


class Transition(eqx.Module):
    """What happened over a window of one trajectory, or any batch of windows (leading axes).

    With g the discount per step, r and m the rewards and masks (0 where the episode terminated), and n the steps of the
    window, fewer where the trajectory ends before:

    - reward = r_0 + g m_0 r_1 + g^2 m_0 m_1 r_2 + .. + g^(n-1) m_0 .. m_(n-2) r_(n-1)
    - discount = g^n m_0 .. m_(n-1), so that a TD target is reward + discount * Q(next_observation, .)

    No window crosses the end of its trajectory. A termination within it stops the rewards and makes the discount 0,
    also where the log goes on behind it. A trajectory that was cut (a time-out) cuts the window: it bootstraps from the
    last known observation, with g to the power of the steps that there are.
    """

    observation: Float[Array, "*batch observation"]
    action: Float[Array, "*batch action"]
    """The logged action; a window's chunk of actions, one after the other."""
    reward: Float[Array, "*batch"]
    discount: Float[Array, "*batch"]
    """Weight of the value of `next_observation`; 0 where the episode terminated within the window."""
    next_observation: Float[Array, "*batch observation"]
    """What was seen at the window's end."""
    next_action: Float[Array, "*batch action"]
    """The logged action or chunk at `next_observation`; at a trajectory's end, what the data hold there, repeated."""
    valid: Float[Array, "*batch"] | None = None
    """1 where the whole chunk lies within its trajectory, else 0; None for chunks of one action, which always do.

    Behind the end the last action is repeated. Nobody did that, so losses must give such rows no weight.
    """


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
    """Ascending. A gap in the numbers is the end of a trajectory."""

    def __len__(self) -> int:
        """Number of transitions (not of rows)."""
        return self.starts.shape[0]

    def sample(
        self, batch_size: int, window: Window, discount: float | Float[Array, ""], *, key: Key[Array, ""]
    ) -> Transition:
        """Draws windows uniformly, with replacement; which ones depends on `key` alone, not on their length.

        **Arguments:** `batch_size`, the number of windows; `window` and `discount` as for `take`; `key`, the random key
        of the draw.

        **Returns:** a `Transition` with one leading axis of length `batch_size`.
        """
        return self.take(jax.random.randint(key, (batch_size,), 0, len(self), jnp.int32), window, discount)

    def take(self, indices: Int[Array, "*batch"], window: Window, discount: float | Float[Array, ""]) -> Transition:
        """Gathers the windows that begin at the transitions of these numbers.

        **Arguments:** `indices` in `[0, len(self))`, any shape; `window`, their length; `discount`, per step.

        **Returns:** a `Transition` whose leading axes are those of `indices`.
        """
        if window.steps > 1:
            one = jax.vmap(lambda index: self._window(index, window, discount))(indices.reshape(-1))
            return jax.tree.map(lambda leaf: leaf.reshape(*indices.shape, *leaf.shape[1:]), one)
        # The general case gives the same bits, with more gathers.
        rows = self.starts[indices]
        return Transition(
            observation=self.observations[rows],
            action=self.actions[rows],
            reward=self.rewards[rows],
            discount=discount * self.masks[rows],
            next_observation=self.observations[rows + 1],
            next_action=self.actions[rows + 1],
        )

    def _window(self, index: Int[Array, ""], window: Window, discount: float | Float[Array, ""]) -> Transition:
        """The window that begins at one transition, cut where its trajectory ends."""
        row, steps = self.starts[index], jnp.arange(window.steps, dtype=jnp.int32)
        reach = self._steps_left(index, window.steps + window.chunk - 1)
        length = jnp.minimum(reach, window.steps)
        inside = steps < length
        within = row + jnp.minimum(steps, length - 1)
        # Each step multiplies the weight of all that follows it, and a termination makes that 0.
        weights = jnp.cumprod(jnp.where(inside, discount * self.masks[within], 1.0))
        rewards = jnp.where(inside, self.rewards[within], 0.0)
        return Transition(
            observation=self.observations[row],
            action=self._chunk(row, row + length - 1, window.chunk),
            reward=rewards[0] + jnp.sum(weights[:-1] * rewards[1:]),
            discount=weights[-1],
            next_observation=self.observations[row + length],
            next_action=self._chunk(row + length, row + reach, window.chunk),
            valid=None if window.chunk == 1 else (length >= window.chunk).astype(rewards.dtype),
        )

    def _steps_left(self, index: Int[Array, ""], most: int) -> Int[Array, ""]:
        """Transitions from this one, itself included, to the end of its trajectory; counted up to `most`."""
        steps = jnp.arange(most, dtype=jnp.int32)
        # Starts ascend: the one `n` numbers on is `n` rows on if and only if no trajectory ends between them.
        follower = jnp.minimum(index + steps, len(self) - 1)
        same = (follower == index + steps) & (self.starts[follower] == self.starts[index] + steps)
        return jnp.sum(same, dtype=jnp.int32)

    def _chunk(self, first: Int[Array, ""], last: Int[Array, ""], size: int) -> Float[Array, " chunk"]:
        """The actions of `size` rows from `first` on, that of row `last` repeated behind it."""
        return self.actions[jnp.minimum(first + jnp.arange(size, dtype=jnp.int32), last)].reshape(-1)
