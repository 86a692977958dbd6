"""OGBench's names of environments, kinds of data and tasks, and how they are composed."""

import dataclasses
import difflib
import fnmatch
import re


DATA_KINDS: dict[str, tuple[str, ...]] = {
    "pointmaze-medium": ("navigate", "stitch"),
    "pointmaze-large": ("navigate", "stitch"),
    "pointmaze-giant": ("navigate", "stitch"),
    "pointmaze-teleport": ("navigate", "stitch"),
    "antmaze-medium": ("navigate", "stitch", "explore"),
    "antmaze-large": ("navigate", "stitch", "explore"),
    "antmaze-giant": ("navigate", "stitch"),
    "antmaze-teleport": ("navigate", "stitch", "explore"),
    "humanoidmaze-medium": ("navigate", "stitch"),
    "humanoidmaze-large": ("navigate", "stitch"),
    "humanoidmaze-giant": ("navigate", "stitch"),
    "antsoccer-arena": ("navigate", "stitch"),
    "antsoccer-medium": ("navigate", "stitch"),
    "cube-single": ("play", "noisy"),
    "cube-double": ("play", "noisy"),
    "cube-triple": ("play", "noisy"),
    "cube-quadruple": ("play", "noisy"),
    "scene": ("play", "noisy"),
    "puzzle-3x3": ("play", "noisy"),
    "puzzle-4x4": ("play", "noisy"),
    "puzzle-4x5": ("play", "noisy"),
    "puzzle-4x6": ("play", "noisy"),
}
"""OGBench's state-based environments, and the kinds of data of each."""

TASKS = (1, 2, 3, 4, 5)
"""Every environment has five tasks, numbered from 1."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One of OGBench's single-task problems: an environment, a kind of data, and the number of the task."""

    environment: str
    """Name of the environment, such as `cube-single`."""
    kind: str
    """Kind of data, such as `play`."""
    number: int | None = None
    """Number of the task, 1 to 5; None: OGBench's default task of the environment."""

    @classmethod
    def parse(cls, env_name: str) -> "Task":
        """Reads OGBench's name of a single-task data set, such as `cube-single-play-singletask-task1-v0`.

        Raises a `ValueError` that lists the nearest known names if there is no such name.
        """
        known = _known_tasks()
        if env_name not in known:
            raise ValueError(
                f"No environment is named {env_name!r}; {_nearest(env_name, list(known))} (one of Gymnasium's is named "
                "MODULE:ID, such as gymnasium:Pendulum-v1)."
            )
        return known[env_name]

    @property
    def env_name(self) -> str:
        """OGBench's name of environment, data and task together."""
        return f"{self.environment}-{self.kind}-{self._task_words}-v0"

    @property
    def dataset(self) -> str:
        """Name of the data set, which all tasks of the environment share; its file is `{dataset}.npz`."""
        return f"{self.environment}-{self.kind}-v0"

    @property
    def gymnasium_id(self) -> str:
        """The id under which OGBench registers the environment with this task."""
        return f"{self.environment}-{self._task_words}-v0"

    @property
    def _task_words(self) -> str:
        return "singletask" if self.number is None else f"singletask-task{self.number}"


def matching(pattern: str) -> list[str]:
    """The names of the tasks that a pattern means, in the order of `DATA_KINDS`.

    **Arguments:** `pattern`, a task's name; a pattern with `*`, `?` or `[..]`, such as `cube-*`, which matches numbered
    tasks only; or the beginning of five tasks, such as `cube-single-play`.

    Raises a `ValueError` that lists the nearest known names if there is none.
    """
    known = _known_tasks()
    numbered = [name for name, task in known.items() if task.number is not None]
    found = [pattern] if pattern in known else [name for name in numbered if fnmatch.fnmatchcase(name, pattern)]
    found = found or [name for name in numbered if name.startswith(f"{pattern}-singletask-")]
    return found or [Task.parse(pattern).env_name]


def dataset_name(name: str, among: list[str]) -> str:
    """The data set of `name`, which is the name of a data set or of one of its single-task problems.

    Raises a `ValueError` that lists the nearest names if the data set is not in `among`.
    """
    dataset = re.sub(r"-singletask(-task\d+)?", "", name)
    if dataset not in among:
        raise ValueError(f"No data set that can be generated is named {name!r}; {_nearest(dataset, among)}.")
    return dataset


def _known_tasks() -> dict[str, Task]:
    tasks = (Task(env, kind, n) for env, kinds in DATA_KINDS.items() for kind in kinds for n in (*TASKS, None))
    return {task.env_name: task for task in tasks}


def _nearest(name: str, known: list[str]) -> str:
    return "the nearest known names are " + ", ".join(difflib.get_close_matches(name, known, n=5, cutoff=0.0))
