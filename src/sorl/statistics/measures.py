"""The measure by which evaluations are compared: success if the environment reports it, else the return."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measure:
    """A score of episodes; higher is better."""

    name: str
    """The key of the mean in a row; `{name}_low` and `{name}_high` are the ends of its interval."""
    label: str
    """The label of an axis, with the unit."""
    factor: float
    """The factor that converts a row's number to the label's unit."""
    limits: tuple[float, float] | None
    """The limits of an axis, in the label's unit; None: those that the numbers need."""
    digits: str
    """The format of a number in a table."""

    def text(self, value: float | None) -> str:
        """The text of a number in a table; `-` if it is not known."""
        return "-" if value is None else f"{value:{self.digits}}"

    def range(self, low: float | None, high: float | None) -> str:
        """The text of an interval in a table."""
        return f"{self.text(low)} .. {self.text(high)}"

    @property
    def axis(self) -> dict[str, Any]:
        """The label and limits of a vertical axis, for `axes.set`."""
        return {"ylabel": self.label} | ({} if self.limits is None else {"ylim": self.limits})


SUCCESS = Measure("success", "success (%)", 100.0, (-3.0, 103.0), ".3f")
RETURN = Measure("return", "return", 1.0, None, ".4g")


def measure_of(rows: Iterable[Mapping[str, Any]], key: str = "successes") -> Measure:
    """Success if every row has one under `key`, else the return, so that all rows are compared by the same measure."""
    return SUCCESS if all(row[key] is not None for row in rows) else RETURN
