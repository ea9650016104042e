"""Pictures, as PNG bytes. matplotlib comes with the extra `plot`; no window is opened, and no display is needed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .training.metrics import TITLES

COLORS = {"train": "#1f77b4", "validation": "#2ca02c", "test": "#ff7f0e"}

# Where curves of these leave room for a legend.
CORNERS = {"loss": "upper right", "accuracy": "lower right", "r2": "lower right"}


def draw_curves(history: list[dict[str, Any]]) -> bytes:
    """Return a picture of loss and metric by epoch, for each set of rows that the history has."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    quantities = [name for name in CORNERS if not history or f"train_{name}" in history[0]][:2]
    for axes, quantity in zip(figure.subplots(1, 2), quantities, strict=True):
        for name, color in COLORS.items():
            points = [(row["epoch"], row[f"{name}_{quantity}"]) for row in history if f"{name}_{quantity}" in row]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            lines = axes.plot(epochs, values, color=color, marker="o" if len(points) <= 30 else None, markersize=4)
            last = values[-1]
            text = f"{name}, {last:.4f} at the end" if isinstance(last, float) else f"{name}, {len(last)} replicas"
            lines[0].set_label(text)
        axes.set_xlabel("epoch")
        axes.set_title(TITLES.get(quantity, quantity))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc=CORNERS[quantity])
    return png(figure)


def draw_mistakes(mistakes: Sequence[tuple[Any, str, str]], wrong: int, rows: int) -> bytes:
    """Return a picture of pictures, (H, W), each with two lines below it; `wrong` of `rows` were mistakes."""
    columns = min(max(len(mistakes), 1), 8)
    lines = max(-(-len(mistakes) // columns), 1)
    figure = Figure(figsize=(1.5 * max(columns, 4), 1.9 * lines + 0.5), dpi=120, layout="constrained")
    figure.suptitle(f"{wrong} of {rows} are wrong" + f"; the worst {len(mistakes)}" * (0 < len(mistakes) < wrong))
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for (picture, *text), axes in zip(mistakes, grid, strict=False):
        axes.imshow(picture, cmap="gray", interpolation="nearest")
        axes.set_xlabel("\n".join(text), fontsize=7)
        axes.set(xticks=[], yticks=[])
    for axes in list(grid):  # what is left of the last line
        axes.set_axis_off()
    return png(figure)


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
