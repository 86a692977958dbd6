"""Rewards of data that have none, or other ones: at successes, at each episode's last step, or from any column."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from sorl.data.recorded.episodes import LoggedEpisode


RULES = "success-at-end, last-step, or from COLUMN"
SUCCESS = ("infos/success", "infos/is_success")
"""The arrays, one of which says in data of D4RL and Minari whether a step succeeded."""


@dataclasses.dataclass(frozen=True)
class RewardRule:
    """Where the rewards come from."""

    kind: Literal["logged", "success-at-end", "last-step", "from"] = "logged"
    column: str | None = None
    """The column of the kind `from`."""

    @classmethod
    def of(cls, words: Sequence[str] | None) -> "RewardRule":
        """The rule of the words of `--reward`; raises a `ValueError` for other words."""
        words = list(words or ())
        # One word may be "from:COLUMN"; the name of a column in a word of its own may have colons.
        match [part for part in words[0].split(":", 1) if part] if len(words) == 1 else words:
            case []:
                return cls()
            case ["success-at-end" | "last-step" as kind]:
                return cls(kind)
            case ["from", column]:
                return cls("from", column)
        raise ValueError(f"The reward is {' '.join(words)!r}; give {RULES}.")

    def column_to_read(self, where: object, rewards: str | None, success: str | None) -> str | None:
        """The column that `applied` needs, or None.

        **Arguments:** `where`, the source's name for messages; `rewards` and `success`, its columns of these, if any.

        Raises a `ValueError` if the source lacks the column.
        """
        if self.kind == "from":
            return self.column
        if self.kind == "last-step":
            return None
        found = rewards if self.kind == "logged" else success
        if found is not None:
            return found
        if self.kind == "logged":
            raise ValueError(f"{where} has no rewards; say where they come from with --reward {RULES}.")
        raise ValueError(
            f"{where} does not say which episodes succeeded; give --reward last-step if all did, or --reward from "
            "COLUMN."
        )

    def applied(self, where: object, episode: LoggedEpisode, *, says_ends: bool) -> LoggedEpisode:
        """The episode with the rule's rewards in place of the column's values, which it has as its rewards.

        **Arguments:** `where`, the source's name for messages; `says_ends`, whether the source says how an episode
        ended; if not, a rewarded last step counts as a termination, because nothing can follow the goal.

        Raises a `ValueError` if the rule needs the success of the last step and that is neither 0 nor 1.
        """
        if self.kind in ("logged", "from"):
            rewards = episode.rewards
            return episode._replace(rewards=rewards.astype(np.float32) if rewards.dtype.kind == "b" else rewards)
        steps = len(episode.actions)
        if not steps or len(episode.rewards) != steps or len(episode.terminated) != steps:
            return episode  # which `sorl.data.recorded.checks.episodes` refuses
        rewards, terminated = np.zeros(steps, np.float32), episode.terminated.copy()
        if self.kind == "last-step" or _succeeded(where, episode):
            rewards[-1] = 1.0
            terminated[-1] |= not says_ends
        return episode._replace(rewards=rewards, terminated=terminated)

    def text(self) -> str:
        """The rule in words, for the provenance."""
        return {
            "logged": "as logged",
            "success-at-end": "1 at the last step of episodes that end in success, else 0",
            "last-step": "1 at the last step of every episode, else 0",
            "from": f"from {self.column}",
        }[self.kind]


def _succeeded(where: object, episode: LoggedEpisode) -> bool:
    last = episode.rewards[-1]
    if last not in (0, 1):
        place = episode.place(len(episode.rewards) - 1)
        raise ValueError(f"The success of {where} is {last} in {place}; give 1 where the task is solved, else 0.")
    return bool(last)
