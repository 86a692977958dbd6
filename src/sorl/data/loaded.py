"""The result of loading data from any source."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from sorl.data.arrays import network_actions
from sorl.data.normalisation import Normalisation
from sorl.data.residence import Chosen
from sorl.data.transitions import Dataset


@dataclasses.dataclass(frozen=True)
class LoadedData:
    """A data set ready for training, in the networks' units."""

    train: Any
    """The training split: a `Dataset` on the device, or a `HostDataset` if the data stay on the host (see `residence`).
    Its type is `Any`, because the caller's options decide which one it is."""
    validation: Any
    """The validation split, in the same place; None if no episodes were held out."""
    normalisation: Normalisation
    """The maps from the environment's units to the networks' units; the identity for OGBench."""
    provenance: dict[str, Any]
    """The origin of the data, JSON-able. For the training split: `source` ("official", "mirror", "generated", "own
    logs", or "unrecorded" if there is no record beside the file), `path`, `size`, `sha256`, `episodes`, `transitions`
    and the other fields of the file's record; the same for the validation split under `validation`; and under `summary`
    the result of `sorl.data.summary.summarise` for the training split."""
    residence: Chosen = Chosen("device", "as asked for")
    """Where the data stay; it changes no number."""


def to_device(
    observations: Float[np.ndarray, "rows observation"],
    actions: Float[np.ndarray, "rows action"],
    rewards: Float[np.ndarray, " rows"],
    masks: Float[np.ndarray, " rows"],
    is_start: Bool[np.ndarray, " rows"],
) -> Dataset:
    """Puts checked rows on the device in single precision, with actions clipped to +-(1 - 1e-5).

    **Arguments:** the rows of all trajectories; `is_start`, whether a row's successor is the next row.
    """
    return Dataset(
        observations=_put(observations, np.float32),
        actions=_put(network_actions(actions), np.float32),
        rewards=_put(rewards, np.float32),
        masks=_put(masks, np.float32),
        starts=_put(np.flatnonzero(is_start), np.int32),
    )


def _put(rows: Shaped[np.ndarray, "..."], kind: type) -> Array:
    # `jnp.asarray` would compile a conversion for each shape.
    return jax.device_put(rows.astype(kind, copy=False))
