"""The random draws of updates, which depend only on (seed, step), and the batches that they choose."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

from sorl.agents import AbstractAgent
from sorl.data.host import HostDataset
from sorl.data.transitions import Dataset, Transition, Window, Windows, draw_indices


# Each use of randomness has its own stream, folded into the key: reusing a key would correlate them.
INIT, UPDATE, SHARED, VALIDATION = range(4)

HELD_OUT_BATCHES = 4
"""Number of batches of which a validation loss is the mean, unless a caller says otherwise."""


class Batches(eqx.Module):
    """The windows of consecutive updates, gathered outside of the program in which they are trained on."""

    windows: Windows
    """With two leading axes, updates and the windows of a batch; as an argument of a program that trains all members,
    with an axis over members before them."""
    first: Int[Array | np.ndarray, ""]
    """The first of the updates."""

    @classmethod
    def like(cls, dataset: HostDataset, window: Window, batch_size: int) -> "Batches":
        """Batches of the right sizes, for one update of one member."""
        return cls(dataset.gather(np.zeros((1, batch_size), np.int32), window), np.zeros((), np.int32))

    def at(self, step: Int[Array, ""]) -> Windows:
        """The windows of one update of one member."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[step - self.first], self.windows)


def update_keys(key: Key[Array, ""], step: Int[Array, ""]) -> tuple[Key[Array, ""], Key[Array, ""]]:
    """The keys of the batch and of the other draws of one update, from the root `key` of a seed."""
    index_key, draw_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, UPDATE), step))
    return index_key, draw_key


def validation_keys(number: Int[Array, ""]) -> Key[Array, "3"]:
    """The keys of the windows, the draws and the shared draws of one held-out batch, for any seed and step."""
    return jax.random.split(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), VALIDATION), number), 3)


def draw(
    agent: AbstractAgent, key: Key[Array, ""], step: Int[Array, ""], data: Dataset | Batches, *, batch_size: int
) -> tuple[Transition, PyTree]:
    """The batch and the random draws of one update of one member; they depend only on its root `key` and the step."""
    index_key, draw_key = update_keys(key, step)
    batch = sample(agent, data, step, batch_size, key=index_key)
    return batch, agent.draw(batch_size, batch.action.shape[-1], key=draw_key)


def sample(
    agent: AbstractAgent, data: Dataset | Batches, number: Int[Array, ""], batch_size: int, *, key: Key[Array, ""]
) -> Transition:
    """Samples windows with the agent's length and discount; from gathered `Batches`, takes the one of `number`.

    Gathered batches hold the windows that `key` would draw. An agent without values has discount 1.
    """
    discount: float | Float[Array, ""] = getattr(agent, "discount", 1.0)
    if isinstance(data, Batches):
        return data.at(number).transition(agent.window, discount)
    return data.sample(batch_size, agent.window, discount, key=key)


def draw_shared(agent: AbstractAgent, step: Int[Array, ""]) -> PyTree:
    """The draws of one update that all members share; they depend only on the step.

    So all members take the same branch of the program, and `vmap` does not turn it into a select.
    """
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), SHARED), step)
    return agent.draw_shared(step, key=key)


def update_indices(
    keys: Key[Array, " members"], first: Int[Array, ""], updates: int, batch_size: int, transitions: int
) -> Int[Array, "members updates batch"]:
    """The indices of the transitions at which each batch's windows begin, for `updates` updates from `first` on."""
    steps = first + jnp.arange(updates, dtype=jnp.int32)

    def one(key, step):
        return draw_indices(batch_size, transitions, key=update_keys(key, step)[0])

    return jax.vmap(lambda key: jax.vmap(lambda step: one(key, step))(steps))(keys)


def validation_indices(batch_size: int, transitions: int) -> Int[Array, "batches batch"]:
    """The indices of the transitions at which each held-out batch's windows begin."""
    numbers = jnp.arange(HELD_OUT_BATCHES, dtype=jnp.int32)
    return jax.vmap(lambda number: draw_indices(batch_size, transitions, key=validation_keys(number)[0]))(numbers)


def separate(drawn: PyTree) -> tuple[PyTree, Callable[[PyTree, Int[Array, ""]], PyTree]]:
    """A tile's arrays as they are, and a function that takes one update's arrays from them.

    **Arguments:** `drawn`, arrays with a leading axis of the tile's updates.

    **Returns:** the arrays, and the function, whose arguments are these arrays and the number of an update in the tile.
    """
    return drawn, lambda drawn, number: jax.tree.map(lambda leaf: leaf[number], drawn)


def joined(drawn: PyTree) -> tuple[PyTree, Callable[[PyTree, Int[Array, ""]], PyTree]]:
    """As `separate`, with all float32 arrays joined to one."""
    floats, others = eqx.partition(drawn, lambda leaf: leaf.dtype == jnp.float32)
    _, as_arrays = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], floats))
    together = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(floats)], axis=1)

    def of_update(drawn: PyTree, number: Int[Array, ""]) -> PyTree:
        row, others = jax.tree.map(lambda leaf: leaf[number], drawn)
        return eqx.combine(as_arrays(row), others)

    return (together, others), of_update
