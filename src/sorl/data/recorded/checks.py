"""Checks of every episode that a reader yields; each fault is a `ValueError` of one sentence with its place."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from sorl.data.checks import LARGEST_ACTION, LARGEST_REWARD, first_bad
from sorl.data.recorded.episodes import LoggedEpisode, Recording


LARGEST = float(np.finfo(np.float32).max)


def episodes(recording: Recording, notes: list[str] | None = None) -> Iterator[LoggedEpisode]:
    """The checked episodes of a recording.

    **Arguments:** `notes`, to which a sentence is appended for each thing that was corrected.

    Raises a `ValueError` if an episode is empty, has other sizes or a wider dtype than the first one, or holds a number
    that is not finite; and if there is no episode.
    """
    first = None
    for episode in recording.read([] if notes is None else notes):
        _refuse_bad_shapes(recording, episode)
        first = first or episode
        _refuse_another_kind(recording, episode, first)
        _refuse_bad_numbers(recording, episode)
        _refuse_bad_times(recording, episode)
        yield episode
    if first is None:
        raise ValueError(f"{recording.path} holds no episode; give data with at least one.")


def _refuse_bad_shapes(recording: Recording, episode: LoggedEpisode) -> None:
    steps = len(episode.rewards)
    if not max(steps, len(episode.actions)):
        raise ValueError(f"{recording.path} has no step in {episode.name}; drop that episode.")
    found = {"observations": episode.observations, "actions": episode.actions, "rewards": episode.rewards}
    for key, array in found.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"{key} of {recording.path} in {episode.name} have dtype {array.dtype}; give arrays of real numbers."
            )
    wanted = len(recording.observation_names), len(recording.action_names)
    for key, size in zip(("observations", "actions"), wanted, strict=True):
        if not size:
            raise ValueError(f"{key} of {recording.path} have no column; give at least one number for each step.")
        if found[key].shape[1:] != (size,):
            raise ValueError(
                f"{key} of {recording.path} in {episode.name} have shape {list(found[key].shape)}, but {size} columns "
                "are expected; give every step the same size."
            )
    if episode.rewards.ndim != 1 or episode.terminated.shape != (steps,) or len(episode.actions) != steps:
        raise ValueError(
            f"{recording.path} has {len(episode.actions)} actions, {steps} rewards and {len(episode.terminated)} end "
            f"flags in {episode.name}; give one of each for every step."
        )
    if len(episode.observations) not in (steps, steps + 1):
        raise ValueError(
            f"{recording.path} has {len(episode.observations)} observations and {steps} actions in {episode.name}; "
            "give one observation before each action, and one after the last."
        )


def _refuse_another_kind(recording: Recording, episode: LoggedEpisode, first: LoggedEpisode) -> None:
    if first.actions.dtype.kind in "iub":
        raise ValueError(
            f"actions of {recording.path} have dtype {first.actions.dtype}, as discrete actions have, but policies act "
            "with real numbers; give continuous actions as floats."
        )
    for key in ("observations", "actions", "rewards"):
        found, expected = (getattr(one, key).dtype for one in (episode, first))
        if not np.can_cast(found, expected, "safe"):
            raise ValueError(
                f"{key} of {recording.path} have dtype {found} in {episode.name}, but {expected} in {first.name}; "
                "store all episodes alike."
            )


def _refuse_bad_numbers(recording: Recording, episode: LoggedEpisode) -> None:
    limits = {"observations": LARGEST, "actions": LARGEST_ACTION, "rewards": LARGEST_REWARD}
    for key, largest in limits.items():
        array: Shaped[np.ndarray, "..."] = getattr(episode, key)
        if array.dtype.kind == "f":  # in half precision, a larger bound would be rounded to infinity
            largest = min(largest, float(np.finfo(array.dtype).max))
        good = np.abs(array) <= largest
        if good.all():
            continue
        row = int(np.argmin(good.reshape(len(array), -1).all(axis=1)))
        number = np.asarray(array[row])
        found = first_bad(number, good[row])
        where = f"{key} of {recording.path} in {_place(episode, row)}: {found}"
        if np.isfinite(number).all():
            raise ValueError(f"{where}, beyond {largest:g}, where training overflows; give them in a larger unit.")
        raise ValueError(f"{where}, which is not finite; repair or drop that episode.")


def _place(episode: LoggedEpisode, row: int) -> str:
    steps = len(episode.actions)
    return episode.place(row) if row < steps else f"the state after {episode.place(steps - 1)}"


def _refuse_bad_times(recording: Recording, episode: LoggedEpisode) -> None:
    times = episode.times
    if times is None:
        return
    good = np.isfinite(times)
    good[1:] &= ~(times[1:] < times[:-1])  # also where either is NaN, which the line above refuses
    if not good.all():
        step = int(np.argmin(good))
        fault = (
            "is not finite" if not np.isfinite(times[step]) else f"comes before the {times[step - 1]} of the last step"
        )
        raise ValueError(
            f"The time of {recording.path} in {episode.place(step)} is {times[step]}, which {fault}; put the steps of "
            "each episode in the order of their times."
        )
