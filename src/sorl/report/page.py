"""A self-contained HTML page of headings, text, tables and pictures, without scripts or network access."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path


STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1e21; background: #fff; max-width: 1120px; margin: 2rem auto;
       padding: 0 1.5rem; }
h1 { font-size: 1.8rem; margin-bottom: .3rem; } h2 { margin-top: 2.6rem; border-bottom: 1px solid #d8dbe0; }
nav a { margin-right: 1rem; } a { color: #1d5fa8; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 1rem 0; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e6e8eb; vertical-align: top; }
th { border-bottom: 2px solid #b9bec6; white-space: nowrap; }
td.number { text-align: right; white-space: nowrap; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; background: #f4f5f7; border-radius: 4px; }
code { padding: .1rem .3rem; } pre { padding: .7rem 1rem; overflow-x: auto; }
"""


class Page:
    """Collects the parts of a page, in order, and escapes all text."""

    def __init__(self, title: str):
        self._title, self._parts = title, [f"<h1>{escape(title)}</h1>"]
        self._sections: list[tuple[str, str]] = []

    def section(self, title: str) -> None:
        """Starts a section; the links at the top of the page lead to it."""
        anchor = f"section-{len(self._sections) + 1}"
        self._sections.append((anchor, title))
        self._parts.append(f'<h2 id="{anchor}">{escape(title)}</h2>')

    def text(self, text: str) -> None:
        """Adds a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def command(self, lines: Sequence[str]) -> None:
        """Adds a block of command lines."""
        self._parts.append(f"<pre>{escape(chr(10).join(lines))}</pre>")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Adds a table; cells that start with a number are aligned to the right."""
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        body = "".join(f"<tr>{''.join(_cell(str(value)) for value in row)}</tr>" for row in rows)
        scroll = '<div class="scroll">'
        self._parts.append(f"{scroll}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")

    def picture(self, path: Path, description: str) -> None:
        """Embeds a PNG file in the page, with `description` as its alternative text."""
        data = base64.b64encode(path.read_bytes()).decode()
        self._parts.append(f'<img src="data:image/png;base64,{data}" alt="{escape(description, quote=True)}">')

    def html(self) -> str:
        """The HTML text of the page."""
        # File names may hold bytes that are not UTF-8, which Python represents as surrogates.
        return "\n".join(self._lines()).encode("utf-8", "backslashreplace").decode()

    def _lines(self) -> list[str]:
        links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title in self._sections)
        heading, *rest = self._parts
        return [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',  # otherwise a browser requests one
            f"<title>{escape(self._title)}</title><style>{STYLE}</style></head><body>",
            heading,
            f"<nav>{links}</nav>",
            *rest,
            "</body></html>\n",
        ]


def _cell(value: str) -> str:
    number = value[:1].isdigit() or value[:1] in "+-" and value[1:2].isdigit()
    return f'<td class="number">{escape(value)}</td>' if number else f"<td>{escape(value)}</td>"
