"""What loading data gives, whatever the source."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from sorl.data.normalisation import Normalisation
from sorl.data.transitions import Dataset


ACTION_LIMIT = 1 - 1e-5
"""Actions are clipped to this magnitude, so that squashing policies can reach all of them."""


@dataclasses.dataclass(frozen=True)
class LoadedData:
    """A data set ready for training, in the networks' units."""

    train: Dataset
    """On the device."""
    validation: Dataset | None
    """On the device; None where no episodes were held out."""
    normalisation: Normalisation
    """From the environment's units to the networks'; the identity for OGBench."""
    provenance: dict[str, Any]
    """Where the data came from, ready for JSON: `source` ("official", "mirror", "generated", "own logs", or
    "unrecorded" where nothing beside the file tells), `path`, `size`, `sha256`, `episodes`, `transitions` and whatever
    else the file's record says, of the training split; the same of the validation split under `validation`; and under
    `summary` what `sorl.data.summary.summarise` says of the training split."""


def to_device(
    observations: Float[np.ndarray, "rows observation"],
    actions: Float[np.ndarray, "rows action"],
    rewards: Float[np.ndarray, " rows"],
    masks: Float[np.ndarray, " rows"],
    is_start: Bool[np.ndarray, " rows"],
) -> Dataset:
    """Puts checked rows on the device in single precision, actions clipped to +-(1 - 1e-5).

    `is_start` marks the rows whose successor is the next row.
    """
    return Dataset(
        observations=_put(observations, np.float32),
        actions=_put(np.clip(actions, -ACTION_LIMIT, ACTION_LIMIT), np.float32),
        rewards=_put(rewards, np.float32),
        masks=_put(masks, np.float32),
        starts=_put(np.flatnonzero(is_start), np.int32),
    )


def _put(rows: Shaped[np.ndarray, "..."], kind: type) -> Array:
    # Not `jnp.asarray`, which compiles a conversion for each shape.
    return jax.device_put(rows.astype(kind, copy=False))


def empty_rows(rows: int, size: int) -> Float[np.ndarray, "rows size"]:
    """An array to fill for `to_device`, placed where JAX on a CPU uses the same memory instead of a copy."""
    count = rows * size * 4
    memory = np.empty(count + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count].view(np.float32).reshape(rows, size)
