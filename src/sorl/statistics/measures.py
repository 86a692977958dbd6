"""What an evaluation is judged by: the success that the environment reports, or else the return."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measure:
    """A score of episodes; higher is better."""

    name: str
    """The key of its mean in a row; `{name}_low` and `{name}_high` are the ends of the interval."""
    label: str
    """With its unit, for an axis."""
    factor: float
    """From a row's number to the label's unit."""
    limits: tuple[float, float] | None
    """The axis, in the label's unit; None: as wide as the numbers need."""
    digits: str
    """Format of a number in a table."""

    def text(self, value: float | None) -> str:
        """A number in a table; `-` where it is not known."""
        return "-" if value is None else f"{value:{self.digits}}"

    def range(self, low: float | None, high: float | None) -> str:
        """An interval in a table."""
        return f"{self.text(low)} .. {self.text(high)}"

    @property
    def axis(self) -> dict[str, Any]:
        """Label and limits of a vertical axis, for `axes.set`."""
        return {"ylabel": self.label} | ({} if self.limits is None else {"ylim": self.limits})


SUCCESS = Measure("success", "success (%)", 100.0, (-3.0, 103.0), ".3f")
RETURN = Measure("return", "return", 1.0, None, ".4g")


def measure_of(rows: Iterable[Mapping[str, Any]], key: str = "successes") -> Measure:
    """Success where every row has one under `key`, else the return: what is compared is measured by one measure."""
    return SUCCESS if all(row[key] is not None for row in rows) else RETURN
