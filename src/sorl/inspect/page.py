"""The data report as a self-contained HTML page."""

import tempfile
from pathlib import Path
from typing import Any

from sorl.inspect import pictures, tables
from sorl.report.page import Page
from sorl.system.files import make_directory, whole_file


def write_page(path: Path, facts: dict[str, Any]) -> None:
    """Writes the page; needs matplotlib. Raises an `OSError`, one sentence, if it cannot be written."""
    page = Page(f"Data report: {Path(facts['path']).name}")
    page.text(f"{facts['path']}, {facts['form']}, SHA-256 {facts['sha256'][:16]}..")
    page.section("Warnings")
    for sentence in [*facts["notes"], *facts["warnings"]] or ["None."]:
        page.text(sentence)
    page.section("Overview")
    page.table(["", ""], tables.overview(facts))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        pictures.overview(directory / "overview.png", facts)
        page.picture(directory / "overview.png", "Histograms of episode lengths, rewards and returns")
        for kind in ("observations", "actions"):
            _add_dimensions(page, kind, facts, directory)
    make_directory(path.parent)
    with whole_file(path) as file:
        file.write(page.html())


def _add_dimensions(page: Page, kind: str, facts: dict[str, Any], directory: Path) -> None:
    page.section(kind.capitalize())
    page.table([*tables.DIMENSIONS], tables.dimension_rows(facts[kind]))
    sampled, drawn = facts["sampled"]["steps"], min(len(facts[kind]), pictures.MOST)
    page.text(
        f"Smooth: the correlation of successive values. Noise: the deviation of white noise on a slow signal. Below, "
        f"histograms of {sampled:,} sampled steps for {drawn} of {len(facts[kind])} dimensions."
    )
    pictures.dimensions(directory / f"{kind}.png", facts[kind])
    page.picture(directory / f"{kind}.png", f"Histograms of the {kind}")
