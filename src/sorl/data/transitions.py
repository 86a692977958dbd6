"""Transitions, the windows of a trajectory that they span, and the device-resident dataset."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class Window:
    """The length of an agent's transitions: rewards before the bootstrap, and actions per decision."""

    n_step: int = 1
    """Number of rewards summed before the bootstrap (n-step returns); at least `chunk` are summed."""
    chunk: int = 1
    """Number of actions per decision (h of Li et al. 2025, "Reinforcement Learning with Action Chunking")."""

    def __post_init__(self):
        for name in ("n_step", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a whole number >= 1.")

    @property
    def steps(self) -> int:
        """Number of environment steps from `observation` to `next_observation`: the larger of `n_step` and `chunk`."""
        return max(self.n_step, self.chunk)


class Transition(eqx.Module):
    """A transition over one window of a trajectory, or any batch of them (leading axes).

    With g the discount per step, r and m the rewards and masks (0 where the episode terminated), and n the number of
    steps of the window, which is smaller if the trajectory ends within it:

    - reward = r_0 + g m_0 r_1 + g^2 m_0 m_1 r_2 + .. + g^(n-1) m_0 .. m_(n-2) r_(n-1)
    - discount = g^n m_0 .. m_(n-1), so that a TD target is reward + discount * Q(next_observation, .)

    No window crosses the end of its trajectory. After a termination within the window no rewards count and the discount
    is 0, even if the log continues. If the trajectory was truncated (a time-out), the window ends there and bootstraps
    from the last observation, with g to the power of the steps up to it.
    """

    observation: Float[Array, "*batch observation"]
    action: Float[Array, "*batch action"]
    """The logged action; with chunks, the actions of the chunk, concatenated."""
    reward: Float[Array, "*batch"]
    discount: Float[Array, "*batch"]
    """gamma^n, the weight of the value of `next_observation`; 0 where the episode terminated within the window."""
    next_observation: Float[Array, "*batch observation"]
    """The observation at the window's end."""
    next_action: Float[Array, "*batch action"]
    """The logged action or chunk at `next_observation`; at a trajectory's end, its last row's action, repeated."""
    valid: Float[Array, "*batch"] | None = None
    """1 if the whole chunk lies within its trajectory, else 0; None for chunks of one action, which are always valid.

    After the end the last action is repeated. The log does not contain such chunks, so losses of the logged action must
    ignore these rows.
    """


def draw_indices(batch_size: int, transitions: int, *, key: Key[Array, ""]) -> Int[Array, " batch"]:
    """Draws the transitions at which the windows of a batch begin, uniformly with replacement."""
    return jax.random.randint(key, (batch_size,), 0, transitions, jnp.int32)


class Windows(eqx.Module):
    """The data of a batch of windows, before rewards are summed: the part of `Dataset.take` that reads the data.

    The arrays are on the device if they were gathered there, or numpy's if they were gathered on the host.
    """

    observation: Float[Array | np.ndarray, "*batch observation"]
    action: Float[Array | np.ndarray, "*batch action"]
    rewards: Float[Array | np.ndarray, "*batch steps"]
    """The reward of each step; after the trajectory's end, that of its last step again."""
    masks: Float[Array | np.ndarray, "*batch steps"]
    """0 where the episode terminated in the step, else 1; after the trajectory's end as for `rewards`."""
    length: Int[Array | np.ndarray, "*batch"] | None
    """Number of steps within the trajectory; None for windows of one step."""
    next_observation: Float[Array | np.ndarray, "*batch observation"]
    next_action: Float[Array | np.ndarray, "*batch action"]

    def transition(self, window: Window, discount: float | Float[Array, ""]) -> Transition:
        """Sums the rewards and multiplies the discounts, gamma per step being `discount`."""
        read: Any = jax.tree.map(jnp.asarray, self)  # numpy's arrays become constants or arguments of a program
        if read.length is None:
            reward, weight, valid = read.rewards[..., 0], discount * read.masks[..., 0], None
        else:
            shape = read.length.shape
            flat = (leaf.reshape(-1, *leaf.shape[len(shape) :]) for leaf in (read.rewards, read.masks, read.length))
            summed = jax.vmap(lambda rewards, masks, length: _summed(rewards, masks, length, discount))(*flat)
            reward, weight = (leaf.reshape(shape) for leaf in summed)
            valid = None if window.chunk == 1 else (read.length >= window.chunk).astype(reward.dtype)
        return Transition(
            observation=read.observation,
            action=read.action,
            reward=reward,
            discount=weight,
            next_observation=read.next_observation,
            next_action=read.next_action,
            valid=valid,
        )


def _summed(
    rewards: Float[Array, " steps"], masks: Float[Array, " steps"], length: Int[Array, ""], discount: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The reward and the discount of one window, of which `length` steps are within its trajectory."""
    inside = jnp.arange(len(rewards), dtype=jnp.int32) < length
    # Each step multiplies the weights of all later steps; a termination makes them 0.
    weights = jnp.cumprod(jnp.where(inside, discount * masks, 1.0))
    rewards = jnp.where(inside, rewards, 0.0)
    return rewards[0] + jnp.sum(weights[:-1] * rewards[1:]), weights[-1]


class Dataset(eqx.Module):
    """Logged trajectories, each observation stored once: the successor of row `i` is row `i + 1`.

    The last row of a trajectory has no successor; `starts` lists the rows that have one, and only those are sampled.
    """

    observations: Float[Array, "rows observation"]
    actions: Float[Array, "rows action"]
    """The actions, in [-1, 1]."""
    rewards: Float[Array, " rows"]
    masks: Float[Array, " rows"]
    starts: Int[Array, " transitions"]
    """The rows that have a successor, ascending; a gap in the numbers is the end of a trajectory."""

    def __len__(self) -> int:
        """Number of transitions (not of rows)."""
        return self.starts.shape[0]

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes of an observation and of an action."""
        return self.observations.shape[1], self.actions.shape[1]

    @property
    def longest(self) -> int:
        """Number of transitions of the longest trajectory."""
        starts = np.asarray(self.starts)
        last = np.append(np.flatnonzero(np.diff(starts) != 1), len(starts) - 1)
        return int(np.diff(last, prepend=-1).max())

    def reward_limits(self) -> Float[np.ndarray, "2"]:
        """The lowest and the highest reward of all transitions."""
        rewards = np.asarray(self.rewards)[np.asarray(self.starts)]
        return np.array([rewards.min(), rewards.max()])

    def sample(
        self, batch_size: int, window: Window, discount: float | Float[Array, ""], *, key: Key[Array, ""]
    ) -> Transition:
        """Samples windows uniformly with replacement; their starts depend only on `key`, not on their length.

        **Arguments:** `batch_size`, the number of windows; `window` and `discount` as for `take`; `key`, a random key.

        **Returns:** a `Transition` with one leading axis of length `batch_size`.
        """
        return self.take(draw_indices(batch_size, len(self), key=key), window, discount)

    def take(self, indices: Int[Array, "*batch"], window: Window, discount: float | Float[Array, ""]) -> Transition:
        """Gathers the windows that begin at the given transitions.

        **Arguments:** `indices` of transitions, in `[0, len(self))` and of any shape; `window`, the windows' length;
        `discount`, gamma per step.

        **Returns:** a `Transition` whose leading axes are those of `indices`.
        """
        return self.gather(indices, window).transition(window, discount)

    def gather(self, indices: Int[Array, "*batch"], window: Window) -> Windows:
        """Gathers the data of the windows that begin at the given transitions; the arguments are those of `take`."""
        if window.steps > 1:
            one = jax.vmap(lambda index: self._window(index, window))(indices.reshape(-1))
            return jax.tree.map(lambda leaf: leaf.reshape(*indices.shape, *leaf.shape[1:]), one)
        # A special case for speed; the general case gives the same bits with more gathers.
        rows = self.starts[indices]
        return Windows(
            observation=self.observations[rows],
            action=self.actions[rows],
            rewards=self.rewards[rows][..., None],
            masks=self.masks[rows][..., None],
            length=None,
            next_observation=self.observations[rows + 1],
            next_action=self.actions[rows + 1],
        )

    def _window(self, index: Int[Array, ""], window: Window) -> Windows:
        """The window that begins at one transition, cut where its trajectory ends."""
        row, steps = self.starts[index], jnp.arange(window.steps, dtype=jnp.int32)
        reach = self._steps_left(index, window.steps + window.chunk - 1)
        length = jnp.minimum(reach, window.steps)
        within = row + jnp.minimum(steps, length - 1)
        return Windows(
            observation=self.observations[row],
            action=self._chunk(row, row + length - 1, window.chunk),
            rewards=self.rewards[within],
            masks=self.masks[within],
            length=length,
            next_observation=self.observations[row + length],
            next_action=self._chunk(row + length, row + reach, window.chunk),
        )

    def _steps_left(self, index: Int[Array, ""], most: int) -> Int[Array, ""]:
        """Number of transitions from this one to the end of its trajectory, itself included; at most `most`."""
        steps = jnp.arange(most, dtype=jnp.int32)
        # Starts ascend, so start number i + n is n rows after start i if and only if no trajectory ends in between.
        follower = jnp.minimum(index + steps, len(self) - 1)
        same = (follower == index + steps) & (self.starts[follower] == self.starts[index] + steps)
        return jnp.sum(same, dtype=jnp.int32)

    def _chunk(self, first: Int[Array, ""], last: Int[Array, ""], size: int) -> Float[Array, " chunk"]:
        """The actions of `size` rows from row `first` on; after row `last`, its action is repeated."""
        return self.actions[jnp.minimum(first + jnp.arange(size, dtype=jnp.int32), last)].reshape(-1)
