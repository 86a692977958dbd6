"""The data source of Minari's data sets."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np
from jaxtyping import Shaped

from sorl.data.recorded.episodes import LoggedEpisode, Recording
from sorl.data.recorded.keys import chosen_keys, column_names, joined
from sorl.data.recorded.rewards import SUCCESS, RewardRule
from sorl.data.recorded.source import RecordedSource
from sorl.environments import minari_sets, spaces


@final
@dataclasses.dataclass(frozen=True)
class Minari(RecordedSource):
    """A Minari data set on this machine, by its id or directory (needs `sorl[minari]`).

    Observations are boxes with one axis. The boxes of a dictionary are concatenated in the order of `observation_keys`,
    by default in the space's own order.
    """

    @classmethod
    def reads(cls, path: pathlib.Path) -> bool:
        """Whether the path is that of a Minari data set, `minari:ID`, or the id of one on this machine."""
        return minari_sets.PREFIX in str(path) or minari_sets.directory_of(path) is not None

    def recording(self) -> Recording:
        """As `RecordedSource.recording`."""
        # Everything that can be refused by the description alone is refused before an episode is read.
        directory = minari_sets.found(self.path)
        rule = RewardRule.of(self.reward)
        dataset = _opened(directory)
        leaves = spaces.leaves(dataset.observation_space)
        keys, left_out = chosen_keys(
            directory, self.observation_keys, {key: spaces.is_vector(leaf) for key, leaf in leaves.items()}
        )
        actions = _refuse_other_actions(directory, dataset.action_space)
        steps = int(dataset.total_steps)
        success = next((key for key in SUCCESS if _has(directory, dataset, key)), None)
        signal = rule.column_to_read(directory, "rewards", success)

        def read(notes: list[str]) -> Iterator[LoggedEpisode]:
            left = steps
            for found in _episodes(directory, dataset):
                left -= len(found.rewards)
                parts = {key: np.asarray(spaces.part(found.observations, key)) for key in keys}
                episode = _episode(directory, found, joined(directory, parts), signal)
                yield rule.applied(directory, episode, says_ends=True)
            if left:
                raise ValueError(
                    f"{directory} has {steps - left} steps in its {dataset.total_episodes} episodes, but "
                    f"{minari_sets.METADATA} says {steps}; fetch or record it again."
                )

        metadata = dataset.storage.metadata
        scores = metadata.get("ref_min_score"), metadata.get("ref_max_score")
        return Recording(
            path=directory,
            form="Minari",
            read=read,
            observation_names=tuple(
                name for key in keys for name in column_names(key, int(np.prod(leaves[key].shape, dtype=int)))
            ),
            action_names=tuple(column_names("action", actions)),
            files=tuple(sorted(path for path in (directory / "data").rglob("*") if path.is_file())),
            steps=steps,
            environment=_environment(dataset, self.observation_keys),
            reference_scores=None if None in scores else (float(scores[0]), float(scores[1])),
            left_out=tuple(left_out),
            details={"observation_keys": keys, "reward": rule.text(), "dataset": dataset.id},
        )


def _opened(directory: pathlib.Path) -> Any:
    import minari

    with _one_sentence(directory):
        return minari.MinariDataset(directory / "data")


@contextmanager
def _one_sentence(directory: pathlib.Path) -> Iterator[None]:
    """Turns Minari's errors about damaged data into a `ValueError`; missing packages are named as they are."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the library checks little, so damaged data fail in many ways
        reason = (str(error).splitlines() or [""])[0].strip(" .")[:200] or type(error).__name__
        text = f"{directory} cannot be read as a Minari data set ({reason}); fetch or record it again."
        raise ValueError(text) from error


def _episodes(directory: pathlib.Path, dataset: Any) -> Iterator[Any]:
    """Minari's episodes, one at a time."""
    episodes = iter(dataset.iterate_episodes())
    while True:
        with _one_sentence(directory):
            found = next(episodes, None)
        if found is None:
            return
        yield found


def _episode(
    directory: pathlib.Path, found: Any, observations: Shaped[np.ndarray, "states observation"], signal: str | None
) -> LoggedEpisode:
    steps = len(found.rewards)
    truncations = np.asarray(found.truncations, np.bool_)
    if len(observations) != steps + 1:
        raise ValueError(
            f"{directory} has {len(observations)} observations for {steps} steps in episode {found.id}, without the "
            "state after the last one; record it with minari.DataCollector."
        )
    if truncations[:-1].any():
        raise ValueError(
            f"{directory} is truncated in step {int(np.argmax(truncations))} of episode {found.id}, but continues; end "
            "the episode there."
        )
    return LoggedEpisode(
        observations=observations,
        actions=np.asarray(found.actions),
        rewards=np.zeros(steps, np.float32) if signal is None else _signal(directory, found, signal),
        terminated=np.asarray(found.terminations, np.bool_),
        truncated=bool(truncations[-1]) if steps else False,
        name=f"episode {found.id}",
    )


def _signal(directory: pathlib.Path, found: Any, name: str) -> Shaped[np.ndarray, " steps"]:
    """The column of rewards, or an entry of `infos` after each step."""
    value = found.rewards if name == "rewards" else _info(found, name)
    if value is None:
        raise ValueError(f"{directory} has no {name!r} in episode {found.id}; give rewards or an entry of infos/.")
    values = np.asarray(value)
    return values[-len(found.rewards) :].reshape(-1)  # infos begin with that of the reset


def _info(found: Any, name: str) -> Any:
    value: Any = {"infos": found.infos or {}}
    for key in name.split("/"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _has(directory: pathlib.Path, dataset: Any, name: str) -> bool:
    found = next(_episodes(directory, dataset), None)
    return found is not None and _info(found, name) is not None


def _refuse_other_actions(directory: pathlib.Path, space: Any) -> int:
    """The size of the actions; raises a `ValueError` unless they are a box of real numbers with one axis."""
    from gymnasium.spaces import Box

    if not isinstance(space, Box) or len(space.shape) != 1 or space.dtype.kind != "f":
        kind = " ".join(str(space).split())[:80]
        raise ValueError(
            f"The actions of {directory} are {kind}, but policies act with vectors of real numbers; give data whose "
            "action space is a Box with one axis (continuous actions)."
        )
    return int(space.shape[0])


def _environment(dataset: Any, keys: Sequence[str] | None) -> str | None:
    """The name of the environment that `recover_environment` makes, with the same observations; None if unknown."""
    chosen = f"[{','.join(keys)}]" if keys else ""
    return None if dataset.env_spec is None else f"{minari_sets.PREFIX}{dataset.id}{chosen}"
