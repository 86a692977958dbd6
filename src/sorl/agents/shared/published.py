"""Published settings and scores of an agent, as data beside the algorithm."""

import dataclasses
from collections.abc import Mapping
from typing import Any


LOCOMOTION = (
    "antmaze-large-navigate",
    "antmaze-giant-navigate",
    "humanoidmaze-medium-navigate",
    "humanoidmaze-large-navigate",
    "antsoccer-arena-navigate",
)
MANIPULATION = ("cube-single-play", "cube-double-play", "scene-play")
ENVIRONMENTS = (*LOCOMOTION, *MANIPULATION)
"""The environments of the papers' tables, with their kind of data: the prefix of the names of their five tasks."""

# Columns that several agents share, one value for each of `ENVIRONMENTS`.
FOUR_LAYERS = [(512, 512, 512, 512)] * len(LOCOMOTION) + [(256, 256, 256, 256)] * len(MANIPULATION)
TWO_LAYERS = [(512, 512)] * len(LOCOMOTION) + [(256, 256)] * len(MANIPULATION)
EXPECTILE = [0.7] * len(LOCOMOTION) + [0.9] * len(MANIPULATION)
DISCOUNT = [0.99, 0.995, 0.995, 0.995, 0.995, 0.99, 0.99, 0.99]
AGGREGATION = ["min", "min", "mean", "mean", "mean", "mean", "mean", "mean"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """An agent's published hyper-parameters and success in one environment."""

    fields: Mapping[str, Any]
    """Hyper-parameters that differ from the agent's defaults."""
    success: int | None
    """Published success in percent, mean over five tasks and eight seeds; None if it is not known."""


@dataclasses.dataclass(frozen=True)
class Published:
    """An agent's published settings and the protocol of its scores."""

    settings: Mapping[str, Settings] = dataclasses.field(default_factory=dict)
    """The settings by environment, such as `cube-single-play`."""
    updates: int = 1_000_000
    """Number of updates of a run."""
    evaluation_interval: int = 100_000
    """Number of updates between evaluations."""

    def of_task(self, task: str) -> Settings | None:
        """The settings for a task; None if there are none."""
        return self.settings.get(environment_of(task))


def environment_of(task: str) -> str:
    """The environment of a task, such as `cube-single-play` for `cube-single-play-singletask-task1-v0`."""
    return task.partition("-singletask")[0]


def rows(success: tuple[int | None, ...], **columns: Any) -> dict[str, Settings]:
    """Creates one `Settings` for each of `ENVIRONMENTS`.

    **Arguments:** `success` of each environment, in percent; `columns`, for each hyper-parameter a list with one value
    per environment, or one value for all.
    """
    columns = {name: v if isinstance(v, list) else [v] * len(ENVIRONMENTS) for name, v in columns.items()}
    return {
        env: Settings({name: column[row] for name, column in columns.items()}, success[row])
        for row, env in enumerate(ENVIRONMENTS)
    }
