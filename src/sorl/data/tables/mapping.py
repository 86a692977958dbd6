"""What the columns of a table are, from a small TOML file."""

import dataclasses
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sorl.system.files import refuse_special
from sorl.system.names import nearest


LISTS = ("observations", "actions", "next_observations", "action_low", "action_high")
NAMES = ("rewards", "success", "terminals", "timeouts", "masks", "next_known", "episode", "time")
EXAMPLE = 'observations = ["x", "v"], actions = ["force"], rewards = "reward", terminals = "done", episode = "run"'


@dataclasses.dataclass(frozen=True)
class Mapping:
    """The columns of a table by their meaning, as `sorl.load_logs` documents it; each name is one of the table's."""

    observations: tuple[str, ...]
    """Columns side by side in this order; a column of vectors gives all its numbers."""
    actions: tuple[str, ...]
    next_observations: tuple[str, ...] | None = None
    next_known: str | None = None
    """Whether `next_observations` holds what was seen after a step; without it, a copy of the next episode's first
    observation counts as unknown."""
    rewards: str | None = None
    success: str | None = None
    """Whether the task is solved, for `--reward success-at-end`."""
    terminals: str | None = None
    timeouts: str | None = None
    masks: str | None = None
    """0 where a step terminated the episode; `terminals` then marks the last row of each trajectory."""
    episode: str | None = None
    """The number of each row's episode; then no other column need mark the ends."""
    time: str | None = None
    """Seconds."""
    frame_rate: float | None = None
    """Steps per second."""
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None

    def __post_init__(self):
        if self.masks is not None and (self.timeouts is not None or self.terminals is None):
            raise ValueError("masks go with terminals, which then mark the ends, and without timeouts.")
        if self.episode is None and self.masks is None and (self.terminals is None or self.timeouts is None):
            raise ValueError(
                "nothing says where episodes end; name terminals and timeouts, terminals and masks, or an episode "
                "column."
            )
        for key in LISTS[:3]:
            refuse_repeated(key, getattr(self, key) or ())
        if self.next_known is not None and self.next_observations is None:
            raise ValueError("next_known goes with next_observations, which are not given.")
        if (self.action_low is None) != (self.action_high is None):
            raise ValueError("only one of action_low and action_high is given; give both or neither.")

    @property
    def columns(self) -> list[str]:
        """All columns that are read in any case, without those of rewards."""
        single = [getattr(self, name) for name in NAMES[2:] if getattr(self, name) is not None]
        return [*dict.fromkeys([*self.observations, *self.actions, *(self.next_observations or ()), *single])]

    def to_json(self) -> dict[str, Any]:
        """The entries that are given, JSON-able."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if value is not None
        }


def refuse_repeated(key: str, names: Sequence[str]) -> None:
    """Raises a `ValueError`, one sentence that begins with `key`, if a column is named twice."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{key} names {twice[0]!r} twice; name each column once.")


def read_mapping(path: Path) -> Mapping:
    """Reads a mapping file.

    Raises a `FileNotFoundError` if there is none, and a `ValueError`, one sentence, if it is no TOML file, or has
    unknown, missing or wrong entries.
    """
    if path.exists():
        refuse_special(path, "TOML file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There is no file {path}, which should say what the columns are; write one such as {EXAMPLE}, one a line."
        ) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is no TOML file in UTF-8 ({error}); write lines such as {EXAMPLE}.") from error
    known = [*LISTS, *NAMES, "frame_rate"]
    if unknown := [key for key in content if key not in known]:
        raise ValueError(
            f"{path} has the unknown entry {unknown[0]!r}{nearest(unknown[0], known)}; remove or correct it."
        )
    missing = [key for key in ("observations", "actions") if key not in content]
    if missing:
        raise ValueError(f"{path} lacks {' and '.join(missing)}; name their columns.")
    values = {key: _checked(path, key, value) for key, value in content.items()}
    try:
        return Mapping(**values)
    except ValueError as error:
        raise ValueError(f"In {path}, {error}") from error


def _checked(path: Path, key: str, value: Any) -> Any:
    """The value of an entry; a single name counts as a list of one."""
    kind: type | tuple[type, ...] = (int, float) if key in ("action_low", "action_high", "frame_rate") else str
    if key in LISTS:
        listed = value if isinstance(value, list) else [value]
        if listed and all(isinstance(item, kind) and not isinstance(item, bool) for item in listed):
            return tuple(listed if kind is str else map(float, listed))
    elif isinstance(value, kind) and not isinstance(value, bool) and (kind is str or 0 < value < math.inf):
        return value if kind is str else float(value)
    expected = (
        "a number above 0"
        if key == "frame_rate"
        else "numbers"
        if kind is not str
        else "names of columns"
        if key in LISTS
        else "the name of a column"
    )
    raise ValueError(f"{key} of {path} is {value!r}; give {expected}.")


def mapping_path(table: Path, columns: Path | None) -> Path:
    """The mapping file of a table: the one that the user names, or `{name}.toml` beside the table."""
    return columns if columns is not None else table.with_suffix(".toml")
