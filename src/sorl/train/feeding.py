"""Batches of data that stay on the host: gathered in a thread while the device trains on those before them."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from sorl.data.host import HostDataset
from sorl.data.transitions import Dataset, Window
from sorl.train.draws import Batches, update_indices, validation_indices


SLAB_BYTES = 1 << 26
"""Size of the batches that are gathered at once; two such slabs are kept, and about one more while one is made."""
TILES_IN_SLAB = 64
"""The most tiles of a slab, so that a short run does not gather much more than it needs."""


class Feed:
    """Gathers the batches of coming updates, one slab ahead, in one thread.

    Slabs lie on an absolute grid of updates, so that one serves all chunks that reach into it.

    **Arguments:** `dataset`; `window` of the agent; `keys`, the root key of each member; `batch_size`; `updates`, the
    number of updates of the whole run; `tile`, a number of updates (a slab holds a multiple of it); `mesh`, whose axis
    `seed` divides the members (None: one device).
    """

    def __init__(
        self,
        dataset: HostDataset,
        window: Window,
        keys: Key[Array, " members"],
        *,
        batch_size: int,
        updates: int,
        tile: int,
        mesh: Mesh | None = None,
    ):
        self._dataset, self._window, self._batch_size, self._updates = dataset, window, batch_size, updates
        self._keys = np.asarray(jax.random.key_data(keys))
        one = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(Batches.like(dataset, window, batch_size)))
        tiles = min(SLAB_BYTES // (one * tile * len(keys)), TILES_IN_SLAB, -(-updates // tile))
        self._size = tile * max(tiles, 1)
        self._places = None if mesh is None else [NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("seed",), ())]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sorl-batches")
        self._slabs: dict[int, Future[Batches]] = {}

    def chunks(self, step: int, updates: int) -> Iterator[tuple[Batches, int]]:
        """The batches of `updates` updates after `step`, in parts: slabs, and how many updates to make with each."""
        end = step + updates
        while step < end:
            number = step // self._size
            stop = min(end, (number + 1) * self._size)
            yield self._slab(number), stop - step
            step = stop

    def close(self) -> None:
        """Ends the thread, after the slab that it is gathering; no batches can be asked for afterwards."""
        self._thread.shutdown(cancel_futures=True)

    def _slab(self, number: int) -> Batches:
        """A slab, after the start of the next one; forgets all others."""
        wanted = [number] + [number + 1] * ((number + 1) * self._size < self._updates)
        self._slabs = {one: self._slabs.get(one) or self._thread.submit(self._gathered, one) for one in wanted}
        return self._slabs[number].result()

    def _gathered(self, number: int) -> Batches:
        first = number * self._size
        indices = _drawn(self._keys, first, self._size, self._batch_size, len(self._dataset))
        windows = self._dataset.gather(indices, self._window)
        members, everywhere = self._places or (None, None)
        return Batches(jax.device_put(windows, members), jax.device_put(np.int32(first), everywhere))


def validation_batches(dataset: Dataset | HostDataset, window: Window, *, batch_size: int) -> Batches:
    """The held-out batches, gathered first, so that `run_validation` is the same program wherever the data stay."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        indices = np.asarray(validation_indices(batch_size, len(dataset)))
    if isinstance(dataset, Dataset):
        return Batches(_gathered(dataset, indices, window), jax.device_put(np.int32(0)))
    return Batches(jax.device_put(dataset.gather(indices, window)), jax.device_put(np.int32(0)))


_gathered = jax.jit(Dataset.gather, static_argnums=2)


def _drawn(
    keys: np.ndarray, first: int, updates: int, batch_size: int, transitions: int
) -> Int[np.ndarray, "members updates batch"]:
    """The indices of a slab, drawn on the CPU, so that they do not wait for the device's chunk."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(_draw(keys, np.int32(first), updates, batch_size, transitions))


@partial(jax.jit, static_argnums=(2, 3, 4))
def _draw(keys: Array, first: Array, updates: int, batch_size: int, transitions: int) -> Array:
    return update_indices(jax.random.wrap_key_data(keys), first, updates, batch_size, transitions)
