"""The scales of a user's own logs: the range of each action, and the normalisation of observations."""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from sorl.data.checks import LARGEST_ACTION
from sorl.data.columns import Columns, blocks, columns, eps, is_constant
from sorl.data.normalisation import Normalisation
from sorl.data.own_logs.file import Log, refuse_wrong_scale


Map = Callable[[Shaped[np.ndarray, "rows size"]], Float[np.ndarray, "rows size"]]
SINGLE_EPS = float(np.finfo(np.float32).eps)


class Range(NamedTuple):
    """The lowest and the highest value of each column, equal for a constant."""

    low: Float[np.ndarray, " size"]
    high: Float[np.ndarray, " size"]


def action_range(
    logs: Sequence[Log], low: float | Sequence[float] | None = None, high: float | Sequence[float] | None = None
) -> Range:
    """The actions that map to -1 and 1, as float32 numbers.

    **Arguments:** `logs`, of which the first is the training file; `low` and `high`, the user's limits; default: those
    stored in the first file, or else the logged range. For a constant action, both are always that constant.

    Raises a `ValueError` for limits that are not a range, or if a logged action is outside them.
    """
    found = [columns(log.rows["actions"]) for log in logs]
    logged = Range(np.min([x.low for x in found], axis=0), np.max([x.high for x in found], axis=0))
    # Whether an action is constant depends on the coarsest dtype of the files.
    coarsest = max((log.rows["actions"].dtype for log in logs), key=eps)
    constant = is_constant(*logged, coarsest)
    stated = _stated(logs[0], low, high)
    if stated is not None:
        _refuse_no_range(logs[0], stated, constant)
        for log in logs:
            _refuse_outside(log, stated)
    return _rounded(logged if stated is None else stated[1], logged, constant)


def rounding(dtype: np.dtype) -> float:
    """The relative error that is allowed to actions of a dtype at stated limits: either may have been rounded."""
    return 2 * max(eps(dtype), SINGLE_EPS)


def kept_range(logs: Sequence[Log], kept: Normalisation) -> Range:
    """The action range of a run that continues on new logs; warns if their actions will be clipped to it.

    Raises a `ValueError` if the actions have a different size.
    """
    low, high = (np.asarray(bound, np.float64) for bound in (kept.action_low, kept.action_high))
    for log in logs:
        actions = log.rows["actions"]
        if actions.shape[1] != len(low):
            raise ValueError(
                f"The actions of {log.path} have size {actions.shape[1]}, those of the run {len(low)}; give its logs."
            )
        # The range was rounded to float32, and a constant may vary by a few rounding steps of its dtype.
        slack = 8 * max(eps(actions.dtype), SINGLE_EPS) * np.maximum(np.abs(low), np.abs(high))
        count, first = 0, None
        for block in blocks(actions):
            outside = (actions[block] < low - slack) | (actions[block] > high + slack)
            if outside.any() and first is None:
                first = tuple(int(place) for place in np.argwhere(outside)[0])
                first = block.start + first[0], first[1]
            count += int(outside.any(axis=1).sum())
        if first is not None:
            row, column = first
            warnings.warn(
                f"Actions of {log.path} leave the run's range in {count} of {len(actions)} "
                f"rows and are clipped to it (first in row {row}: column {column} is {actions[row, column]}, the range "
                f"{low[column]} to {high[column]}).",
                stacklevel=3,
            )
    return Range(low, high)


def normalisation(observations: Columns, actions: Range, margin: float | None) -> Normalisation:
    """The maps from the logs' units to the networks'.

    **Arguments:** `observations`, statistics of the training rows; `actions`, the range from `action_range`; `margin`,
    the number of half ranges from the centre beyond which an observation is clipped (None: no clipping).
    """
    scale = np.where(observations.constant | (observations.deviation == 0), 1, observations.deviation)
    mean, scale = observations.mean.astype(np.float32), scale.astype(np.float32)
    remainder = (observations.mean - mean).astype(np.float32)
    low = high = None
    if margin is not None:
        centre, half = observations.low / 2 + observations.high / 2, observations.high / 2 - observations.low / 2
        ends = ((centre + side * half - (mean.astype(np.float64) + remainder)) / scale for side in (-margin, margin))
        low, high = (jax.device_put(np.where(observations.constant, 0, end).astype(np.float32)) for end in ends)
    return Normalisation(
        observation_mean=jax.device_put(mean),
        observation_scale=jax.device_put(scale),
        action_low=jax.device_put(actions.low.astype(np.float32)),
        action_high=jax.device_put(actions.high.astype(np.float32)),
        observation_mean_remainder=jax.device_put(remainder),
        observation_low=low,
        observation_high=high,
    )


def observation_map(normalisation: Normalisation) -> Map:
    """The map of logged observations to the networks' units."""
    if not normalisation.is_of_own_logs:
        return functools.partial(
            _single_precision, centre=normalisation.observation_mean, scale=normalisation.observation_scale
        )
    return normalisation.standardisation()


def action_map(normalisation: Normalisation) -> Map:
    """The map of logged actions to the networks' units, like `Normalisation.action`, but in double precision."""
    low, high = normalisation.action_low, normalisation.action_high
    if not normalisation.is_of_own_logs:
        return functools.partial(_single_precision, centre=(high + low) / 2, scale=(high - low) / 2)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    centre, half = (high + low) / 2, (high - low) / 2
    divisor = np.where(half == 0, 1, half)
    return lambda raw: np.where(half == 0, 0, (raw - centre) / divisor).astype(np.float32)


def _single_precision(
    raw: Shaped[np.ndarray, "rows size"], centre: Float[Array, " size"], scale: Float[Array, " size"]
) -> Float[np.ndarray, "rows size"]:
    """The formula of sorl 0.1.0, computed by XLA (whose division differs from numpy's), for bit-equal resumed runs."""
    return np.asarray(_centred_and_scaled(raw.astype(np.float32), centre, scale))


@jax.jit
def _centred_and_scaled(raw: Array, centre: Array, scale: Array) -> Array:
    return (raw - centre[None]) / scale[None]


def _stated(
    log: Log, low: float | Sequence[float] | None, high: float | Sequence[float] | None
) -> tuple[str, Range] | None:
    """The explicit range with its source, the arguments or else the file; None if neither gives one."""
    size = log.rows["actions"].shape[1]
    if low is None and high is None:
        if not log.scale:
            return None
        refuse_wrong_scale(log.path, {key: bound.shape for key, bound in log.scale.items()}, size)
        bounds = log.scale["action_low"], log.scale["action_high"]
        return "stored", Range(*(bound.astype(np.float64) for bound in bounds))
    if low is None or high is None:
        raise ValueError(f"Of the action range only {'high' if low is None else 'low'} is given; give both.")
    bounds = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if any(bound.shape not in ((), (1,), (size,)) for bound in bounds):
        sizes = " and ".join(str(bound.size) for bound in bounds)
        wanted = "1" if size == 1 else f"1 or {size}"
        raise ValueError(
            f"action_low and action_high have {sizes} numbers, the actions of {log.path} {size}; give {wanted}."
        )
    return "given", Range(*(np.broadcast_to(bound, (size,)) for bound in bounds))


def _refuse_no_range(log: Log, stated: tuple[str, Range], constant: Shaped[np.ndarray, " action"]) -> None:
    _, (low, high) = stated
    representable = (np.abs(low) <= LARGEST_ACTION) & (np.abs(high) <= LARGEST_ACTION)
    good = representable & ((low < high) | (constant & (low == high)))
    if not good.all():
        column = int(np.argmin(good))
        raise ValueError(
            f"action_low {low[column]} and action_high {high[column]} of column {column} of the actions of {log.path} "
            f"span no range; give finite low < high, up to {LARGEST_ACTION:g} in size."
        )


def _refuse_outside(log: Log, stated: tuple[str, Range]) -> None:
    """Raises a `ValueError` with the first row whose action is outside the explicit range."""
    source, (low, high) = stated
    actions = log.rows["actions"]
    slack = rounding(actions.dtype) * np.maximum(np.abs(low), np.abs(high))
    for block in blocks(actions):
        inside = (low - slack <= actions[block]) & (actions[block] <= high + slack)
        if not inside.all():
            row, column = (int(place) for place in np.argwhere(~inside)[0])
            raise ValueError(
                f"actions of {log.path} leave the {source} range {low[column]} to {high[column]} in row "
                f"{block.start + row}: column {column} is {actions[block][row, column]}; correct the range."
            )


def _rounded(wanted: Range, logged: Range, constant: Shaped[np.ndarray, " action"]) -> Range:
    """Rounds a range to float32, inwards, so that no action is outside it through rounding."""
    low, high = (bound.astype(np.float32) for bound in wanted)
    low = np.where(low < wanted.low, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > wanted.high, np.nextafter(high, np.float32(-np.inf)), high)
    middle = (logged.low / 2 + logged.high / 2).astype(np.float32)
    constant = constant | (low >= high)
    return Range(
        np.where(constant, middle, low).astype(np.float64), np.where(constant, middle, high).astype(np.float64)
    )
