"""The history of a training, and its representation in notebooks: a table, and curves as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.html import table, text
from ..model.metrics import TITLES
from .spread import DEVIATION, with_deviations

HistoryRow = dict[str, Any]
Points = Sequence[tuple[float, float]]

MOST_ROWS = 8  # of a table
MOST_POINTS = 300  # of a curve, about one a pixel
# Colours that a colour-blind reader can tell apart, on white and on black: M. Okabe and K. Ito, 2008.
COLORS = {"train": "#0072B2", "validation": "#009E73", "test": "#D55E00"}
OTHERS = ("#E69F00", "#56B4E9", "#CC79A7", "#0072B2", "#009E73", "#D55E00")
WIDTH, HEIGHT = 330, 190  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 40, 22  # margins of its axes


class History(list[HistoryRow]):
    """Rows of a training, one an epoch, as dicts; a notebook shows them as a table and curves."""

    def _repr_html_(self) -> str:
        return f"<div>{rows_table(self)}{curves_svg(self)}</div>"


def rows_table(history: Sequence[HistoryRow]) -> str:
    """Return a table of the history as HTML, of at most `MOST_ROWS` rows: the first and the last ones."""
    if not history:
        return table((), (), "nothing was trained yet")
    shown = [with_deviations(row) for row in (*history[:1], *history[max(1, len(history) - MOST_ROWS + 1) :])]
    names = [name for name in shown[-1] if name != "watch" and not name.endswith(DEVIATION)]
    lines = [[_cell(row.get(name, "")) for name in names] for row in shown]
    if len(shown) < len(history):
        lines.insert(1, ["…"] * len(names))
    replicas = next((len(value) for value in history[-1].values() if isinstance(value, list)), None)
    caption = "" if replicas is None else f"means over {replicas} replicas"
    return table([name.replace("_", " ") for name in names], lines, caption)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def curves_svg(history: Sequence[HistoryRow]) -> str:
    """Return loss and metric by epoch as SVG; where layers were watched, their dead units and updates, too."""
    distance = len(history) // MOST_POINTS + 1
    last = len(history) - 1
    rows = [
        with_deviations(row) for i, row in enumerate(history) if i == 0 or (last - i) % distance == 0 or "watch" in row
    ]
    panels = []
    for quantity in ("loss", *TITLES):
        lines = {name: _points(rows, f"{name}_{quantity}") for name in COLORS}
        lines = {name: points for name, points in lines.items() if points}
        if lines:
            panels.append(panel(TITLES.get(quantity, quantity), lines))
    panels.append(panel("dead units", watched_lines(rows, "dead")))
    panels.append(panel("size of a step / size of the weights", watched_lines(rows, "update_ratio"), logarithmic=True))
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(panels)}</div>'


def watched_lines(rows: Sequence[Mapping[str, Any]], figure: str) -> dict[str, list[tuple[float, float]]]:
    """Return a figure of each watched layer by epoch: of dead units, that of layers without parameters."""
    watched = [(row["epoch"], row["watch"]) for row in rows if "watch" in row]
    layers = [
        name
        for name, figures in (watched[-1][1] if watched else {}).items()
        if figure in figures and (figure != "dead" or "update_ratio" not in figures)
    ]
    return {name: [(epoch, layers[name][figure]) for epoch, layers in watched] for name in layers}


def _points(rows: Iterable[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[name]) for row in rows if name in row]


def panel(title: str, lines: Mapping[str, Points], *, logarithmic: bool = False) -> str:
    """Return axes with lines as SVG, in the colour of the text around it; points that are not finite are left out.

    Args:
        title: above the axes.
        lines: points (x, y) of each line, by its name.
        logarithmic: whether the y axis is; only points above 0 are then drawn.
    """
    scale = (lambda y: math.log10(y) if y > 0.0 else -math.inf) if logarithmic else float
    scaled = {
        name: [(x, scale(y)) for x, y in points if y is not None and math.isfinite(y) and math.isfinite(scale(y))]
        for name, points in lines.items()
    }
    every = [point for points in scaled.values() for point in points]
    if not every:
        return ""
    (x_low, x_high), (y_low, y_high) = ((min(values), max(values)) for values in zip(*every, strict=True))
    across = (WIDTH - LEFT - RIGHT) / ((x_high - x_low) or 1.0)
    up = (HEIGHT - TOP - BOTTOM) / ((y_high - y_low) or 1.0)
    parts = []
    labels, place = [], float(LEFT)
    for number, (name, points) in enumerate(scaled.items()):
        color = COLORS.get(name, OTHERS[number % len(OTHERS)])
        places = " ".join(
            f"{LEFT + (x - x_low) * across:.1f},{HEIGHT - BOTTOM - (y - y_low) * up:.1f}" for x, y in points
        )
        parts.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"/>')
        if len(points) == 1:
            x, y = places.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>')
        if place + 6.5 * len(name) < WIDTH:  # a legend that is too long ends
            labels.append(f'<text x="{place:.0f}" y="32" fill="{color}" font-weight="bold">{text(name)}</text>')
        place += 6.5 * len(name) + 10
    bounds = [f"{10.0**y if logarithmic else y:.3g}" for y in (y_low, y_high)]
    bottom = HEIGHT - BOTTOM
    parts += [
        f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="currentColor" stroke-opacity="0.5"/>',
        f'<text x="{LEFT - 4}" y="{bottom}" text-anchor="end">{bounds[0]}</text>',
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{bounds[1]}</text>' * (y_low < y_high),
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{x_low:g}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">epoch {x_high:g}</text>',
        f'<text x="{LEFT}" y="15" font-size="13">{text(title)}{", logarithmic" * logarithmic}</text>',
    ]
    last = ", ".join(f"{name} {points[-1][1]:.4g}" for name, points in lines.items() if points)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{text(f"{title}, at the end: {last}")}"'
        f' width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11"'
        f' fill="currentColor">{"".join(parts + labels)}</svg>'
    )
