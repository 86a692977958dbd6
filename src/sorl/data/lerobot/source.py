"""The data source of LeRobot's directories."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping as Named
from typing import final

from sorl.data.lerobot import meta
from sorl.data.lerobot.frames import Frames
from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.data.recorded.keys import chosen_keys, column_names
from sorl.data.recorded.rewards import RewardRule
from sorl.data.recorded.source import RecordedSource
from sorl.data.tables.mapping import Mapping
from sorl.data.tables.recording import recording
from sorl.system.files import expanded


@final
@dataclasses.dataclass(frozen=True)
class LeRobot(RecordedSource):
    """A directory in LeRobot's format, version 2 or 3 (needs `sorl[lerobot]`).

    Observations are all vectors whose names begin with `observation`, in the order of `meta/info.json`. A step with
    `next.done` ends the task, as in LeRobot's own replay buffer, unless `next.truncated` says that it was cut there; an
    episode that ends without it was cut. No episode has the state after its last step.
    """

    @classmethod
    def reads(cls, path: pathlib.Path) -> bool:
        """Whether the path is a directory with `meta/info.json`."""
        return (path / meta.INFO).is_file()

    def recording(self) -> Recording:
        """As `RecordedSource.recording`."""
        path, rule = expanded(self.path, "give its full name"), RewardRule.of(self.reward)
        info = meta.read_info(path)
        features, meta_files, files = info.features, meta.meta_files(path), meta.data_files(path)
        observed = {key: meta.is_vector(one) for key, one in features.items() if key.startswith("observation")}
        keys, _ = chosen_keys(path, self.observation_keys, observed)
        _refuse_other_actions(path, info)
        # The steps are a table, whose columns are LeRobot's features.
        names = {key: key if key in features else None for key in ("next.reward", "next.success", "next.done")}
        mapping = Mapping(
            observations=tuple(keys),
            actions=("action",),
            rewards=names["next.reward"],
            success=names["next.success"],
            terminals=names["next.done"],
            timeouts="next.truncated" if names["next.done"] and "next.truncated" in features else None,
            episode="episode_index",
            time="timestamp" if "timestamp" in features else None,
        )
        # Sizes, counts and lengths must be those that the description states.
        table = Frames(path, files)
        if table.rows != info.frames:
            raise ValueError(
                f"{path} has {table.rows} steps in its parquet files, but meta/info.json says {info.frames}; "
                f"{meta.REMEDY}."
            )
        found = recording(table, mapping, rule, f"LeRobot {info.version}", files)
        _refuse_other_shapes(path, info, table.shapes([*keys, "action"]))
        lengths = meta.episode_lengths(meta_files)
        if len(lengths) != info.episodes:
            raise ValueError(
                f"{path} lists {len(lengths)} episodes, but meta/info.json says {info.episodes}; {meta.REMEDY}."
            )

        def read(notes: list[str]) -> Iterator[LoggedEpisode]:
            left = dict(lengths)
            for episode in found.read(notes):
                _refuse_other_length(path, episode, left)
                yield _with_truncation(episode)
            if left:
                raise ValueError(f"{path} lists episode {min(left)}, but has no step of it; {meta.REMEDY}.")

        return dataclasses.replace(
            found,
            read=read,
            observation_names=_names(features, keys, found.observation_names),
            action_names=_names(features, ["action"], found.action_names),
            files=(path / meta.INFO, *meta_files, *files),
            frame_rate=info.fps,
            left_out=_left_out(info, keys, rule.column),
            details={**found.details, "observation_keys": keys, "robot": info.robot},
        )


def _refuse_other_actions(path: pathlib.Path, info: meta.Info) -> None:
    action = info.features.get("action")
    if action is None:
        raise ValueError(f"{path} has no feature 'action'; it has {', '.join(info.features)}.")
    if not meta.is_vector(action) or not str(action["dtype"]).startswith("float"):
        raise ValueError(
            f"action of {path} has dtype {action['dtype']} and shape {list(action.get('shape') or ())}, but policies "
            "act with vectors of real numbers; give continuous actions as floats."
        )


def _refuse_other_shapes(path: pathlib.Path, info: meta.Info, found: Named[str, tuple[int, ...]]) -> None:
    for name, shape in found.items():
        size, expected = math.prod(shape[1:]), math.prod(info.features[name].get("shape") or [1])
        if size != expected:
            raise ValueError(
                f"{name} of {path} has {size} numbers in each step, but meta/info.json says {expected}; {meta.REMEDY}."
            )


def _refuse_other_length(path: pathlib.Path, episode: LoggedEpisode, left: dict[int, int]) -> None:
    """Takes an episode off the list of those that are left; raises a `ValueError` if its length is another."""
    expected = left.pop(int(episode.name.removeprefix("episode ")), "no such episode")
    if expected != len(episode.actions):
        raise ValueError(
            f"{path} has {len(episode.actions)} steps of {episode.name}, but its description says {expected}; "
            f"{meta.REMEDY}."
        )


def _with_truncation(episode: LoggedEpisode) -> LoggedEpisode:
    """`next.done` is also 1 where an episode was cut; `next.truncated` tells the two apart."""
    if not episode.truncated or not episode.terminated[-1]:
        return episode
    terminated = episode.terminated.copy()
    terminated[-1] = False
    return episode._replace(terminated=terminated)


def _names(features, keys: list[str], found: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the dimensions that the features state; those found if they do not fit the data."""
    names = [
        name
        for key in keys
        for name in column_names(key, (features[key].get("shape") or [1])[0], meta.names_of(features[key]))
    ]
    return tuple(names) if len(names) == len(found) else found


def _left_out(info: meta.Info, keys: list[str], column: str | None) -> tuple[str, ...]:
    """The features that are not read: images, videos, texts, and observations that were not chosen."""
    used = (*keys, "action", "next.reward", "next.success", "next.done", "next.truncated", column, *meta.BOOKKEEPING)
    return tuple(key for key in info.features if key not in used)
