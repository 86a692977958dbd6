"""How far a long computation is: a bar where there is a terminal, a plain line now and then where there is none."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm


LINE_SECONDS = 30.0
"""Where there is no terminal, the time from one line to the next."""

BAR: dict[str, Any] = {"smoothing": 0, "bar_format": "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"}
"""How a bar begins: without a speed, which is the mean since the first steps once there is one."""


class Progress:
    """Shows steps done, steps per second, time left, and figures to keep an eye on, on standard error.

    **Arguments:**

    - `total`: steps in all.
    - `initial`: steps that were done before (by the run that is resumed); they do not count towards the speed.
    - `quiet`: show nothing but messages.
    - `unit`: what a step is called, in the plural.
    - `clock`: seconds, for the plain lines.
    """

    def __init__(
        self,
        total: int,
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
            # The first steps take the time of compilation, too: the speed is measured from here on.
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
        """Shows figures (losses, the last success) from now on; those of other names stay as they are."""
        self._figures |= figures
        if self._bar is not None:
            self._bar.set_postfix_str(self._figures_text())

    def message(self, text: str) -> None:
        """Writes a line that has to be seen, above the bar if there is one, also when quiet."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the last bar or line standing. Closing twice does nothing."""
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet and self._done > self._told:
            self._write_line()
        self._quiet, self._bar = True, None

    def _write_line(self) -> None:
        self._last_line, self._told = self._clock(), self._done
        rate = (self._done - self._initial) / max(self._last_line - self._start, 1e-9)
        parts = [f"{self._done}/{self._total} {self._unit}"]
        if rate > 0:
            parts.append(f"{rate:.3g}/s")
        if self._done < self._total and rate > 0:
            parts.append(f"{tqdm.format_interval((self._total - self._done) / rate)} left")
        if self._figures:
            parts.append(self._figures_text())
        self.message(", ".join(parts))

    def _figures_text(self) -> str:
        return ", ".join(f"{name} {value:.3g}" for name, value in self._figures.items())
