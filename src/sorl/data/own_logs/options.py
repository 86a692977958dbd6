"""The options of every source of a user's own data."""

import dataclasses
import pathlib
from collections.abc import Sequence

from sorl.data.residence import Residence


@dataclasses.dataclass(frozen=True)
class LogOptions:
    """Where a user's own data are, and how they become a training set; `sorl.load_logs` documents them at length."""

    path: pathlib.Path
    validation_fraction: float = 0.1
    """Share of the episodes held out for validation losses, in [0, 1)."""
    observation_margin: float | None = 1.5
    """Observations are clipped to centre +- margin * half of each logged range (>= 1; None: no clipping)."""
    action_low: float | Sequence[float] | None = None
    """Lower limits of the actions, one for each or one for all; default: those in the data, or the lowest logged."""
    action_high: float | Sequence[float] | None = None
    """Upper limits of the actions; default: those in the data, or else the highest logged actions."""
    sparse_rewards: bool = False
    """Replace every reward other than 0 by -1."""
    reward_scale: float = 1.0
    """Multiply every reward by this."""
    residence: Residence = "auto"
    """Where the data stay: on the device, on the host, or on disk; auto: the fastest for which there is memory."""
