"""Figures of matplotlib: drawn without a display, with labels of any characters, and written atomically."""

import warnings
from pathlib import Path
from typing import Any

from sorl.system.files import whole_file


def pyplot_without_screen() -> Any:
    """Matplotlib's pyplot, which draws into memory; raises an `ImportError` if matplotlib is missing."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def write_picture(figure: Any, path: Path, dpi: int = 150) -> None:
    """Writes a matplotlib figure in the format of the file's suffix (PNG without one), and closes the figure.

    Raises a `ValueError` for a format that matplotlib cannot write, and an `OSError` if the system refuses; each is
    one sentence.
    """
    from matplotlib import pyplot

    kind, kinds = path.suffix[1:].lower() or "png", sorted(figure.canvas.get_supported_filetypes())
    if kind not in kinds:
        raise ValueError(f"{path} ends in .{kind}, which matplotlib does not write; end it in .{', .'.join(kinds)}.")
    with warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; the report beside the picture shows it.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        with whole_file(path, "wb") as file:
            figure.savefig(file, dpi=dpi, format=kind)
    pyplot.close(figure)


def plain(text: str) -> str:
    """Escapes a text for matplotlib: a dollar sign would begin a formula, and a file name may not be valid UTF-8."""
    shown = " ".join(text.encode("utf-8", "replace").decode().split())
    return shown.replace("$", r"\$")


def legend(axes: Any, **settings: Any) -> None:
    """Adds a legend if anything drawn has a label."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(framealpha=0.75, edgecolor="none", **settings)  # curves behind it show through
