"""Functions that the benchmarks' pictures share."""

from collections.abc import Sequence
from typing import Any

from sorl.system import pictures


def pyplot_without_screen() -> Any | None:
    """As `sorl.system.pictures.pyplot_without_screen`; without matplotlib, prints a line and returns None."""
    try:
        return pictures.pyplot_without_screen()
    except ImportError:
        print("No picture was drawn: matplotlib is not installed (pip install 'sorl[plots]').")
        return None


def logarithmic(axes: Any, values: Sequence[float]) -> None:
    """Sets logarithmic axes with plain numbers: `values` on x, and 1, 2 and 5 times powers of ten on y."""
    from matplotlib import ticker

    axes.set(xscale="log", yscale="log")
    axes.set_xticks(values, [f"{value:,g}" if value < 1e6 else f"{value / 1e6:g}M" for value in values], fontsize=7)
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def logarithmic_counts(axes: Any, values: Sequence[int]) -> None:
    """Sets a logarithmic x axis with plain numbers at `values`."""
    from matplotlib import ticker

    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:,}" for value in values])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
