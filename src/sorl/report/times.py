"""The section of a report on the times of updates and decisions."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sorl.report import pictures
from sorl.report.page import Page
from sorl.system.files import read_json


def add_times(page: Page, files: Sequence[Path], draw: Callable[..., None]) -> None:
    """Adds the times in files written by `benchmarks/runtime.py`; `draw` draws a picture and adds it to the page."""
    if not files:
        return
    page.section("Time")
    for index, path in enumerate(files):
        found = read_runtime(path)
        panels = [pictures.update_times, pictures.decision_times][: 2 if found["decisions"] else 1]
        machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
        settings = found["settings"]
        sizes = f"{settings['layers']} hidden layers of {settings['width']} units, batch {settings['batch_size']}"
        page.text(f"{settings['agent']}, {sizes}; {machine}.")

        def draw_panels(*axes: Any, panels: Any = panels, found: Any = found) -> None:
            for panel, one in zip(panels, axes, strict=True):
                panel(one, found)

        draw(f"runtime-{index}", draw_panels, columns=len(panels))
        page.command([f"python {shlex.join(found['command'])}"])


def read_runtime(path: Path) -> dict[str, Any]:
    """Reads a file written by `benchmarks/runtime.py`; raises a `ValueError` for any other file."""
    remedy = "write it again with benchmarks/runtime.py"
    found = read_json(path, remedy)
    if missing := {"updates", "decisions", "machine", "settings", "command"} - found.keys():
        raise ValueError(f"{path} has no {', '.join(sorted(missing))}; {remedy}.")
    return found
