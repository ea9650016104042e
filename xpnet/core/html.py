"""HTML of notebooks: every text in it is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .errors import printable


def text(value: object) -> str:
    """Escape a text for HTML, and show its control characters."""
    return escape(printable(value))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table; the cells of all columns but the first are aligned to the right."""
    align = ["left", *["right"] * (len(header) - 1)]

    def line(tag: str, cells: Sequence[str]) -> str:
        inside = (
            f'<{tag} style="text-align:{side}">{text(cell)}</{tag}>' for side, cell in zip(align, cells, strict=True)
        )
        return f"<tr>{''.join(inside)}</tr>"

    body = "".join(line("td", row) for row in rows)
    style = "caption-side:bottom;text-align:left;white-space:nowrap"
    below = f'<caption style="{style}">{text(caption)}</caption>' if caption else ""
    return f"<table>{below}<thead>{line('th', header) if header else ''}</thead><tbody>{body}</tbody></table>"
