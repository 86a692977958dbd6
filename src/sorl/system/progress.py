"""Progress of a long computation: a bar on a terminal, or else a plain line from time to time."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm


LINE_SECONDS = 30.0
"""Seconds between two plain lines."""

BAR: dict[str, Any] = {"smoothing": 0, "bar_format": "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"}
"""A bar's first format, without a speed; the speed appears once it is measured, and is the mean since then."""


class Progress:
    """Shows steps done, steps per second, time left and a few metrics, on standard error.

    **Arguments:**

    - `total`: the total number of steps; None if it is not known.
    - `initial`: steps done before, by the run that is resumed; they do not count towards the speed.
    - `quiet`: show nothing but messages.
    - `unit`: the name of a step, in the plural.
    - `clock`: returns seconds; the plain lines are timed with it.
    """

    def __init__(
        self,
        total: int | None,
        initial: int = 0,
        *,
        quiet: bool = False,
        unit: str = "updates",
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._initial, self._done, self._told = total, initial, initial, initial
        self._unit, self._quiet, self._clock = unit, quiet, clock
        self._figures: dict[str, float] = {}
        self._is_measured = False
        self._start = self._last_line = clock()
        self._bar: tqdm | None = None
        if not quiet and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=initial, unit=f" {unit}", dynamic_ncols=True, file=sys.stderr, **BAR)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def advance(self, steps: int) -> None:
        """Counts `steps` more as done."""
        self._done += steps
        if not self._is_measured:
            # The first steps include compilation, so the speed is measured from here on.
            self._is_measured, self._start, self._initial = True, self._clock(), self._done
            if self._bar is not None:
                self._bar.update(steps)
                self._bar.initial, self._bar.start_t = self._done, time.time()
        elif self._bar is not None:
            self._bar.bar_format = None
            self._bar.update(steps)
        elif not self._quiet and self._clock() - self._last_line >= LINE_SECONDS:
            self._write_line()

    def show(self, figures: Mapping[str, float]) -> None:
        """Updates the metrics shown (losses, the last success); metrics with other names keep their values."""
        self._figures |= figures
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures_text())

    def message(self, text: str) -> None:
        """Writes a line, above the bar if there is one; it appears even if `quiet`."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Stops, leaving the last bar or line on the screen; closing again does nothing."""
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet and self._done > self._told:
            self._write_line()
        self._quiet, self._bar = True, None

    def _write_line(self) -> None:
        self._last_line, self._told = self._clock(), self._done
        rate = (self._done - self._initial) / max(self._last_line - self._start, 1e-9)
        total = "" if self._total is None else f"/{self._total}"
        parts = [f"{self._done}{total} {self._unit}"]
        if rate > 0:
            parts.append(f"{rate:.3g}/s")
        if self._total is not None and self._done < self._total and rate > 0:
            parts.append(f"{tqdm.format_interval((self._total - self._done) / rate)} left")
        if self._figures:
            parts.append(self._figures_text())
        self.message(", ".join(parts))

    def _figures_text(self) -> str:
        return ", ".join(f"{name} {value:.3g}" for name, value in self._figures.items())
