"""Whether a critic's values agree with the returns that followed in the logs."""

import numpy as np
from jaxtyping import Float

from sorl.assess.record import Bin, Calibration
from sorl.statistics.ranks import rank_correlation


BINS = 10
"""Groups of states with like values, equal in number, of a calibration."""


def calibrate(
    critic: str, predicted: Float[np.ndarray, "states heads"], returned: Float[np.ndarray, " states"]
) -> Calibration:
    """Compares the values of logged actions with the discounted returns from them on.

    **Arguments:** `critic`, its name; `predicted`, one value for each head; `returned`, the returns.
    """
    mean = predicted.mean(axis=1, dtype=np.float64)
    parts = np.array_split(np.argsort(mean, kind="stable"), min(BINS, len(mean)))
    return Calibration(
        critic=critic,
        rank_correlation=rank_correlation(mean, returned),
        bias=float((mean - returned).mean()),
        error=float(np.abs(mean - returned).mean()),
        disagreement=float(predicted.std(axis=1, dtype=np.float64).mean()),
        bins=tuple(Bin(float(mean[part].mean()), float(returned[part].mean()), len(part)) for part in parts),
    )
