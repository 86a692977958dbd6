"""Pictures as files: whole or not at all, with any text in them."""

import warnings
from pathlib import Path
from typing import Any

from sorl.system.files import whole_file


def write_picture(figure: Any, path: Path, dpi: int = 150) -> None:
    """Writes a matplotlib figure in the format that the file's suffix names (PNG without one), and closes it.

    Raises a `ValueError` for a format that matplotlib does not write, and an `OSError` where the system refuses; each
    is one sentence.
    """
    from matplotlib import pyplot

    kind, kinds = path.suffix[1:].lower() or "png", sorted(figure.canvas.get_supported_filetypes())
    if kind not in kinds:
        raise ValueError(f"{path} ends in .{kind}, which matplotlib does not write; end it in .{', .'.join(kinds)}.")
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; the page beside the picture has it.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        with whole_file(path, "wb") as file:
            figure.savefig(file, dpi=dpi, format=kind)
    pyplot.close(figure)


def plain(text: str) -> str:
    """A text as matplotlib shows it literally: a dollar sign would begin a formula, and a name may hold no UTF-8."""
    shown = " ".join(text.encode("utf-8", "replace").decode().split())
    return shown.replace("$", r"\$")


def legend(axes: Any, **settings: Any) -> None:
    """A legend, where anything was drawn that has a name."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, **settings)
